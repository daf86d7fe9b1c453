"""What configs name; importing this module registers backbones and layers.

It needs MMEngine only. MMDetection and MMSegmentation find the modules by the prefix ``mmdcn.``.
Heads and detectors extend theirs, so a config imports their modules itself:
``mmdcn.models.detectors`` and the modules of ``mmdcn.models.heads``.
"""

from mmdcn.models import backbones, layers

__all__ = ["backbones", "layers"]
