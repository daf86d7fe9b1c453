"""Deformable operators for plain PyTorch; no OpenMMLab package is imported here."""

from .dcnv3 import dcnv3
from .dcnv4 import dcnv4
from .deform_conv import (
    DeformConv2d,
    DeformConv2dPack,
    ModulatedDeformConv2d,
    ModulatedDeformConv2dPack,
    deform_conv2d,
    modulated_deform_conv2d,
)
from .deform_ps_roi_pool import (
    DeformPSRoIPool,
    DeformPSRoIPoolPack,
    ModulatedDeformPSRoIPoolPack,
    deform_ps_roi_pool,
)
from .deform_roi_pool import (
    DeformRoIPool,
    DeformRoIPoolPack,
    ModulatedDeformRoIPoolPack,
    deform_roi_pool,
)
from .modules import DCNv3, DCNv3Conv2d, DCNv4, DCNv4Conv2d
from .ps_roi_pool import PSRoIPool, ps_roi_pool
from .roi_avg_pool import RoIAvgPool, roi_avg_pool

__all__ = [
    "DCNv3",
    "DCNv3Conv2d",
    "DCNv4",
    "DCNv4Conv2d",
    "DeformConv2d",
    "DeformConv2dPack",
    "DeformPSRoIPool",
    "DeformPSRoIPoolPack",
    "DeformRoIPool",
    "DeformRoIPoolPack",
    "ModulatedDeformConv2d",
    "ModulatedDeformConv2dPack",
    "ModulatedDeformPSRoIPoolPack",
    "ModulatedDeformRoIPoolPack",
    "PSRoIPool",
    "RoIAvgPool",
    "dcnv3",
    "dcnv4",
    "deform_conv2d",
    "deform_ps_roi_pool",
    "deform_roi_pool",
    "modulated_deform_conv2d",
    "ps_roi_pool",
    "roi_avg_pool",
]
