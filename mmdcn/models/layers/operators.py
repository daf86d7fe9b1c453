"""The modules of :mod:`mmdcn.ops` under names for OpenMMLab configs.

The operators know nothing of OpenMMLab, so their modules are registered here.
"""

from mmdcn import ops
from mmdcn.registry import MODELS

# What takes the place of a convolution, as `dcn` of a ResNet and `conv_cfg` of MMCV's ConvModule
# want it. The first two names are MMCV's. InternImage's own DCNv3 and DCNv4, channels last, are
# layers of that backbone and not named in configs.
MODELS.register_module(name="DCN", module=ops.DeformConv2dPack)
MODELS.register_module(name="DCNv2", module=ops.ModulatedDeformConv2dPack)
MODELS.register_module(name="DCNv3", module=ops.DCNv3Conv2d)
MODELS.register_module(name="DCNv4", module=ops.DCNv4Conv2d)

# What pools regions, under the names of the classes.
for _layer in (
    ops.DeformPSRoIPool,
    ops.DeformPSRoIPoolPack,
    ops.DeformRoIPool,
    ops.DeformRoIPoolPack,
    ops.ModulatedDeformPSRoIPoolPack,
    ops.ModulatedDeformRoIPoolPack,
    ops.PSRoIPool,
    ops.RoIAvgPool,
):
    MODELS.register_module(module=_layer)
