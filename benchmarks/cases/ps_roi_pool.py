"""ps_roi_pool."""

from .deform_ps_roi_pool import plain_pool

CASES = [plain_pool("ps_roi_pool", largest=True)]
