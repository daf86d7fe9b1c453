"""Optimizer wrappers and their constructors."""

from mmdcn.engine.optimizers.autocast import BFloat16OptimWrapper
from mmdcn.engine.optimizers.layer_decay import (
    ClassifierLayerDecayOptimWrapperConstructor,
    LayerDecayOptimWrapperConstructor,
)
from mmdcn.engine.optimizers.offsets import OptimWrapperConstructor

__all__ = [
    "BFloat16OptimWrapper",
    "ClassifierLayerDecayOptimWrapperConstructor",
    "LayerDecayOptimWrapperConstructor",
    "OptimWrapperConstructor",
]
