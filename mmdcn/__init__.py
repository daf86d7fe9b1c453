"""mmdcn: deformable operators and the models built on them, for PyTorch and OpenMMLab."""

__version__ = "0.1.0"
