"""roi_avg_pool."""

from .deform_ps_roi_pool import plain_pool

CASES = [plain_pool("roi_avg_pool", largest=True)]
