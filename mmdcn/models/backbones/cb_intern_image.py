"""Two InternImages, of which the second one also sees what the first one found.

`CBNet: A Composite Backbone Network Architecture for Object Detection
<https://arxiv.org/abs/2107.00420>`_ (Liang et al., TIP 2022), with dense higher-level composition,
as the official InternImage repository has it. State-dict keys are those of its checkpoints.
"""

from __future__ import annotations

import torch
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn
from torch.nn import functional as F

from mmdcn.models.backbones.intern_image import InternImage
from mmdcn.registry import MODELS


class AssistedInternImage(InternImage):
    """The second backbone: starts from the stem of the first one and adds its features.

    Arguments as for :class:`InternImage`.
    """

    may_be_missing = (*InternImage.may_be_missing, *(f"gamma{level}" for level in range(4)))
    may_be_unexpected = (*InternImage.may_be_unexpected, "patch_embed")

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        del self.patch_embed
        for level in range(4):  # not to be confused with gamma1 and gamma2 of the blocks
            gain = nn.Parameter(torch.zeros(self.settings.channels * 2**level))
            self.register_parameter(f"gamma{level}", gain)

    def forward(self, x: Tensor, features: list[Tensor]) -> list[Tensor]:
        """Outputs of all levels, channels last.

        Args:
            x: Output of the first backbone's stem, ``(N, H / 4, W / 4, C)``.
            features: What the first backbone has for the input of each level, channels last.
        """
        # The official model rounds its gains in every precision, and so does this one.
        gains = [getattr(self, f"gamma{level}").half().to(x.dtype) for level in range(4)]
        return self.forward_levels(x, [g * f for g, f in zip(gains, features, strict=True)])


@MODELS.register_module()
class CBInternImage(BaseModule):
    """Two InternImages; the input of each level of the second one gets the outputs of that and all
    higher levels of the first one, times gains that start at zero.

    Args:
        arch, settings: As for :class:`InternImage`, for both.
        out_indices: Levels whose outputs are returned, 0 to 3 for strides 4 to 32.
        init_cfg: As for :class:`InternImage`; both load the same file.

    Raises:
        ValueError, TypeError: A setting is unknown or has a wrong value.
    """

    def __init__(
        self,
        arch: str | dict | None = None,
        out_indices: tuple[int, ...] = (0, 1, 2, 3),
        init_cfg: dict | None = None,
        **settings,
    ) -> None:
        super().__init__()
        self.cb_modules = ModuleList(
            backbone(arch, out_indices, init_cfg=init_cfg, **settings)
            for backbone in (InternImage, AssistedInternImage)
        )
        self.settings = self.cb_modules[0].settings
        self.out_indices = self.cb_modules[0].out_indices
        channels = [self.settings.channels * 2**level for level in range(4)]
        self.cb_linears = nn.ModuleList(
            nn.ModuleList(
                nn.Identity() if source == target else nn.Conv2d(channels[source], c, 1)
                for source in range(target, 4)
            )
            for target, c in enumerate(channels)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """``(N, 3, H, W)`` -> one ``(M, C * 2**i, H / 2**(i + 2), W / 2**(i + 2))`` per level i.

        In evaluation M = N, and the outputs are those of the second backbone. In training M = 2N:
        those of the first one, then those of the second one.
        """
        first, second = self.cb_modules
        stem = first.forward_stem(x)
        features = first.forward_levels(stem)
        parts = [features] if self.training else []
        parts.append(second(stem, self._compose(features)))
        outputs = []
        for level in self.out_indices:
            maps = [part[level].permute(0, 3, 1, 2) for part in parts]
            outputs.append(torch.cat(maps).contiguous())
        return tuple(outputs)

    def _compose(self, features: list[Tensor]) -> list[Tensor]:
        features = [f.permute(0, 3, 1, 2) for f in features]
        composed = []
        for target, linears in enumerate(self.cb_linears):
            size = features[target].shape[-2:]
            total = features[target]
            for linear, source in zip(linears[1:], features[target + 1 :], strict=True):
                total = total + F.interpolate(linear(source), size=size)
            composed.append(total.permute(0, 2, 3, 1))
        return composed

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning rates: the last one for all.

        The official rule does not cover composite backbones, so all parameters learn at the full
        rate. Arguments and result as in :meth:`InternImage.get_layer_depth`.
        """
        last = sum(self.settings.depths) + 1
        return last, last + 1
