"""Deformable operators for plain PyTorch; no OpenMMLab package is imported here."""

from . import reference as reference
from .dcnv3 import dcnv3 as dcnv3
from .dcnv4 import dcnv4 as dcnv4
from .deform_conv2d import deform_conv2d as deform_conv2d
from .deform_conv2d import modulated_deform_conv2d as modulated_deform_conv2d
from .deform_ps_roi_pool import deform_ps_roi_pool as deform_ps_roi_pool
from .deform_roi_pool import deform_roi_pool as deform_roi_pool
from .modules.conv import DCNv3Conv2d as DCNv3Conv2d
from .modules.conv import DCNv4Conv2d as DCNv4Conv2d
from .modules.dcnv3 import DCNv3 as DCNv3
from .modules.dcnv4 import DCNv4 as DCNv4
from .modules.deform_conv2d import DeformConv2d as DeformConv2d
from .modules.deform_conv2d import DeformConv2dPack as DeformConv2dPack
from .modules.deform_conv2d import ModulatedDeformConv2d as ModulatedDeformConv2d
from .modules.deform_conv2d import ModulatedDeformConv2dPack as ModulatedDeformConv2dPack
from .modules.deform_ps_roi_pool import DeformPSRoIPool as DeformPSRoIPool
from .modules.deform_ps_roi_pool import DeformPSRoIPoolPack as DeformPSRoIPoolPack
from .modules.deform_ps_roi_pool import ModulatedDeformPSRoIPoolPack as ModulatedDeformPSRoIPoolPack
from .modules.deform_roi_pool import DeformRoIPool as DeformRoIPool
from .modules.deform_roi_pool import DeformRoIPoolPack as DeformRoIPoolPack
from .modules.deform_roi_pool import ModulatedDeformRoIPoolPack as ModulatedDeformRoIPoolPack
from .modules.make_deformable import make_deformable as make_deformable
from .modules.ps_roi_pool import PSRoIPool as PSRoIPool
from .modules.roi_avg_pool import RoIAvgPool as RoIAvgPool
from .ps_roi_pool import ps_roi_pool as ps_roi_pool
from .roi_avg_pool import roi_avg_pool as roi_avg_pool

__all__ = sorted(name for name, value in globals().items() if callable(value))
