"""A ResNet in which only some blocks of a stage are deformable; this module needs MMDetection."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.models.backbones import ResNet as MMDetResNet
from torch import nn

from mmdcn.registry import MODELS


@MODELS.register_module()
class ResNet(MMDetResNet):
    """MMDetection's ResNet, in which only the last blocks of a stage need be deformable.

    `Deformable Convolutional Networks <https://arxiv.org/abs/1703.06211>`_ (Dai et al., 2017) takes
    the last block of conv3 and of conv4, and all of conv5.

    Args:
        dcn_blocks: how many of the last blocks of each stage are deformable, in the stages that
            `stage_with_dcn` names.
        args, kwargs: as in MMDetection's ``ResNet``, ``dcn`` and ``stage_with_dcn`` among them.

    Raises:
        ValueError: `dcn_blocks` does not have one number for each stage, or one that is not between
            0 and the number of its blocks.
    """

    def __init__(self, *args, dcn_blocks: Sequence[int], **kwargs) -> None:
        self.dcn_blocks = tuple(dcn_blocks)
        super().__init__(*args, **kwargs)
        blocks = self.stage_blocks
        wrong = any(not 0 <= n <= all_ for n, all_ in zip(self.dcn_blocks, blocks, strict=False))
        if len(self.dcn_blocks) != len(blocks) or wrong:
            raise ValueError(
                f"dcn_blocks: expected a number of blocks for each of the {len(blocks)} stages, at "
                f"most {blocks}, got {self.dcn_blocks}"
            )

    def make_res_layer(self, **kwargs) -> nn.Sequential:
        """The blocks of the next stage; MMDetection calls this for one after the other."""
        stage = super().make_res_layer(**kwargs)
        index = len(self.res_layers)
        if kwargs.get("dcn") is not None and index < len(self.dcn_blocks):
            plain = super().make_res_layer(**dict(kwargs, dcn=None))
            for i, block in enumerate(plain):
                if i < len(plain) - self.dcn_blocks[index]:
                    stage[i] = block
        return stage
