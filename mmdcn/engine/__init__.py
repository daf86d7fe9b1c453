"""Parts of the training loop for OpenMMLab configs; importing this module registers them."""

from mmdcn.engine.checkpoint import AtomicCheckpointHook

__all__ = ["AtomicCheckpointHook"]
