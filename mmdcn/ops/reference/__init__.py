"""The operators in plain, differentiable PyTorch.

They define the meaning of each operator, serve as the oracle of the tests, and run where no
native kernel does: any device, any torch. float16 and bfloat16 are computed in float32.
"""

from .dcnv3 import dcnv3, dcnv4
from .deform_conv import deform_conv2d, modulated_deform_conv2d
from .deform_ps_roi_pool import deform_ps_roi_pool
from .deform_roi_pool import deform_roi_pool
from .ps_roi_pool import ps_roi_pool
from .roi_avg_pool import roi_avg_pool

__all__ = [
    "dcnv3",
    "dcnv4",
    "deform_conv2d",
    "deform_ps_roi_pool",
    "deform_roi_pool",
    "modulated_deform_conv2d",
    "ps_roi_pool",
    "roi_avg_pool",
]
