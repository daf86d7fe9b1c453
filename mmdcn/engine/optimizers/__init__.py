"""Optimizer constructors."""

from mmdcn.engine.optimizers.layer_decay import LayerDecayOptimWrapperConstructor

__all__ = ["LayerDecayOptimWrapperConstructor"]
