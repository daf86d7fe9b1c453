"""What stands between InternImage's maps and the linear layer of its classifiers.

`InternImage <https://arxiv.org/abs/2211.05778>`_ (Wang et al., CVPR 2023). State-dict keys are
those of the official repositories, after ``neck.``; the official ``head`` is the ``fc`` of
MMPretrain's ``LinearClsHead``.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from mmdcn.models.backbones.intern_image import initialize_linear_layers
from mmdcn.ops.modules.layers import build_act_layer, build_norm_layer
from mmdcn.registry import MODELS


@MODELS.register_module()
class ConvPooling(BaseModule):
    """A 1x1 convolution, normalised and activated, and the mean of its map: for T to XL.

    Args:
        in_channels: Channels of the last map, 8 C.
        out_channels: Channels of the vector; officially ``int(8 C * 1.5)``.
        act_layer: Activation.
        init_cfg: As in MMEngine's ``BaseModule``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        act_layer: str = "GELU",
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.conv_head = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            build_norm_layer(out_channels, "BN", "channels_first", "channels_first"),
            build_act_layer(act_layer),
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor]:
        """Maps, the last one ``(N, in_channels, H, W)`` -> one ``(N, out_channels)``."""
        return (self.conv_head(maps[-1]).mean(dim=(2, 3)),)


class CrossAttention(nn.Module):
    """Multi-head attention with bare biases, as the official checkpoints have them."""

    def __init__(self, channels: int, heads: int, out_channels: int) -> None:
        super().__init__()
        self.heads = heads
        for name in "qkv":
            setattr(self, name, nn.Linear(channels, channels, bias=False))
        for name in "qkv":
            setattr(self, f"{name}_bias", nn.Parameter(self.q.weight.new_zeros(channels)))
        self.proj = nn.Linear(channels, out_channels)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Query ``(N, Q, C)``, key and value ``(N, T, C)`` -> ``(N, Q, O)``."""
        q, k, v = (
            F.linear(x, getattr(self, name).weight, getattr(self, f"{name}_bias"))
            .unflatten(2, (self.heads, -1))
            .transpose(1, 2)
            for name, x in zip("qkv", (query, key, value), strict=True)
        )
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.proj(attended.transpose(1, 2).flatten(2))


class AttentionPooling(nn.Module):
    """The mean of all tokens asks them, each side with a norm of its own."""

    def __init__(self, channels: int, heads: int, out_channels: int) -> None:
        super().__init__()
        for name in ("norm1_q", "norm1_k", "norm1_v"):
            setattr(self, name, build_norm_layer(channels))
        self.cross_dcn = CrossAttention(channels, heads, out_channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(N, T, C)`` -> ``(N, O)``."""
        query = self.norm1_q(tokens.mean(dim=1, keepdim=True))
        return self.cross_dcn(query, self.norm1_k(tokens), self.norm1_v(tokens))[:, 0]


@MODELS.register_module()
class CLIPProjector(BaseModule):
    """The last two maps, brought to stride 16, added and pooled by attention: for H and G.

    Args:
        in_channels: Channels of the maps of strides 16 and 32, 4 C and 8 C.
        embed_dim: Channels of the tokens.
        heads: Heads of the attention.
        out_channels: Channels of the vector.
        init_cfg: As in MMEngine's ``BaseModule``.
    """

    def __init__(
        self,
        in_channels: tuple[int, int],
        embed_dim: int = 1024,
        heads: int = 16,
        out_channels: int = 768,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.dcnv3_head_x4 = nn.Sequential(
            nn.Conv2d(in_channels[1], 4 * embed_dim, 1), nn.PixelShuffle(2)
        )
        self.dcnv3_head_x3 = nn.Conv2d(in_channels[0], embed_dim, 1)
        self.clip_projector = AttentionPooling(embed_dim, heads, out_channels)
        self.fc_norm = build_norm_layer(out_channels)
        initialize_linear_layers(self)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor]:
        """Maps, the last two of strides 16 and 32 -> one ``(N, out_channels)``.

        Raises:
            ValueError: The map of stride 16 has not twice the size of that of stride 32.
        """
        middle, last = maps[-2:]
        if middle.shape[2:] != tuple(2 * side for side in last.shape[2:]):
            raise ValueError(
                "expected an image whose height and width are multiples of 32, got maps of "
                f"{tuple(middle.shape[2:])} and {tuple(last.shape[2:])} pixels"
            )
        tokens = self.dcnv3_head_x4(last) + self.dcnv3_head_x3(middle)
        pooled = self.clip_projector(tokens.flatten(2).transpose(1, 2))
        return (self.fc_norm(pooled),)
