"""Parts of the training loop for OpenMMLab configs; importing this module registers them."""

from mmdcn.engine.channels_last import ChannelsLastHook
from mmdcn.engine.checkpoint import AtomicCheckpointHook
from mmdcn.engine.optimizers import (
    BFloat16OptimWrapper,
    ClassifierLayerDecayOptimWrapperConstructor,
    LayerDecayOptimWrapperConstructor,
    OptimWrapperConstructor,
)
from mmdcn.engine.seeding import EpochSeedHook

__all__ = [
    "AtomicCheckpointHook",
    "BFloat16OptimWrapper",
    "ChannelsLastHook",
    "ClassifierLayerDecayOptimWrapperConstructor",
    "EpochSeedHook",
    "LayerDecayOptimWrapperConstructor",
    "OptimWrapperConstructor",
]
