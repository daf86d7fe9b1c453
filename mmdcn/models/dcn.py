"""The deformable layers of :mod:`mmdcn.ops` under names for OpenMMLab configs.

The operators know nothing of OpenMMLab, so their modules are registered here.
"""

from torch import nn

from mmdcn.ops import (
    DCNv3,
    DCNv3Conv2d,
    DCNv4,
    DCNv4Conv2d,
    DeformConv2dPack,
    ModulatedDeformConv2dPack,
)
from mmdcn.registry import MODELS

# The names that MMCV gives to the same layers.
MODELS.register_module(name="DCN", module=DeformConv2dPack)
MODELS.register_module(name="DCNv2", module=ModulatedDeformConv2dPack)


@MODELS.register_module(name="DCNv3")
def build_dcnv3(*args, **kwargs) -> nn.Module:
    """With ``channels`` the channels-last :class:`mmdcn.ops.DCNv3`, as InternImage has it.

    Otherwise :class:`mmdcn.ops.DCNv3Conv2d`, which takes the place of a convolution: ``dcn`` of a
    ResNet and ``conv_cfg`` of MMCV's ``ConvModule`` give it input and output channels.
    """
    return (DCNv3 if "channels" in kwargs else DCNv3Conv2d)(*args, **kwargs)


@MODELS.register_module(name="DCNv4")
def build_dcnv4(*args, **kwargs) -> nn.Module:
    """:class:`mmdcn.ops.DCNv4` or :class:`mmdcn.ops.DCNv4Conv2d`, chosen as by `build_dcnv3`."""
    return (DCNv4 if "channels" in kwargs else DCNv4Conv2d)(*args, **kwargs)
