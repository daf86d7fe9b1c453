"""Settings of an InternImage, and those of the published models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Structure of a backbone, with the official argument names and defaults."""

    core_op: str = "DCNv3"  # or "DCNv4"
    channels: int = 64  # of the first level; doubled at each further one
    depths: tuple[int, ...] = (3, 4, 18, 5)  # blocks of each level
    groups: tuple[int, ...] = (3, 6, 12, 24)  # of the operator, in each level
    mlp_ratio: float = 4.0
    drop_rate: float = 0.0  # dropout after the stem and in the MLPs
    drop_path_rate: float = 0.2  # stochastic depth, of the last block if linear
    drop_path_type: str = "linear"  # or "uniform"
    act_layer: str = "GELU"
    norm_layer: str = "LN"  # of stem, downsampling and operator; the blocks' norms are always LN
    layer_scale: float | None = None  # initial value of the learnt factors of each branch
    offset_scale: float = 1.0
    post_norm: bool = False  # normalise a branch's output instead of its input
    res_post_norm: bool = False  # normalise both; without effect with post_norm or layer_scale
    dw_kernel_size: int | None = None
    level2_post_norm: bool = False  # further norms in the third level, after these blocks
    level2_post_norm_block_ids: tuple[int, ...] | None = None
    center_feature_scale: bool = False
    remove_center: bool = False  # drop the middle tap of the operator's kernel
    dcn_output_bias: bool = True  # DCNv4 only
    mlp_fc2_bias: bool = True
    use_dcn_v4_op: bool = False  # official choice between two kernels of one result; no effect

    def __post_init__(self) -> None:
        if len(self.depths) != 4 or len(self.groups) != 4:
            raise ValueError(
                f"depths and groups: expected 4 numbers each, got {self.depths} and {self.groups}"
            )
        if self.core_op not in ("DCNv3", "DCNv4"):
            raise ValueError(f"core_op: expected 'DCNv3' or 'DCNv4', got {self.core_op!r}")
        if self.drop_path_type not in ("linear", "uniform"):
            raise ValueError(
                f"drop_path_type: expected 'linear' or 'uniform', got {self.drop_path_type!r}"
            )
        ids = self.level2_post_norm_block_ids
        if self.level2_post_norm and not (ids and all(0 <= i < self.depths[2] for i in ids)):
            raise ValueError(
                "level2_post_norm_block_ids: expected indices of blocks of the third level "
                f"(0 to {self.depths[2] - 1}), got {ids}"
            )

    def drop_path_rates(self) -> list[float]:
        """Rate of every block, in order over all levels."""
        count = sum(self.depths)
        if self.drop_path_type == "uniform":
            return [self.drop_path_rate] * count
        return [self.drop_path_rate * i / max(count - 1, 1) for i in range(count)]


# The fields in which the official defaults of a model differ from those above, as the detection and
# segmentation configs have them. `drop_path_rate` is not among them: it belongs to the training
# recipe.
INTERN_IMAGE = dict(
    default=dict(),
    tiny=dict(
        channels=64,
        depths=(4, 4, 18, 4),
        groups=(4, 8, 16, 32),
        layer_scale=1.0,
    ),
    small=dict(
        channels=80,
        depths=(4, 4, 21, 4),
        groups=(5, 10, 20, 40),
        layer_scale=1.0,
        post_norm=True,
    ),
    base=dict(
        channels=112,
        depths=(4, 4, 21, 4),
        groups=(7, 14, 28, 56),
        layer_scale=1.0,
        post_norm=True,
    ),
    large=dict(
        channels=160,
        depths=(5, 5, 22, 5),
        groups=(10, 20, 40, 80),
        layer_scale=1.0,
        offset_scale=2.0,
        post_norm=True,
    ),
    xlarge=dict(
        channels=192,
        depths=(5, 5, 24, 5),
        groups=(12, 24, 48, 96),
        layer_scale=1.0,
        offset_scale=2.0,
        post_norm=True,
    ),
    huge=dict(
        channels=320,
        depths=(6, 6, 32, 6),
        groups=(10, 20, 40, 80),
        dw_kernel_size=5,
        res_post_norm=True,
        level2_post_norm=True,
        level2_post_norm_block_ids=(5, 11, 17, 23, 29),
        center_feature_scale=True,
    ),
    giant=dict(
        channels=512,
        depths=(2, 2, 48, 4),
        groups=(16, 32, 64, 128),
        post_norm=True,
        dw_kernel_size=5,
        level2_post_norm=True,
        level2_post_norm_block_ids=(5, 11, 17, 23, 29, 35, 41, 47),
        center_feature_scale=True,
    ),
)

FLASH_INTERN_IMAGE = dict(
    default=dict(core_op="DCNv4", offset_scale=0.5, dcn_output_bias=False, mlp_fc2_bias=False),
    tiny=dict(INTERN_IMAGE["tiny"], offset_scale=1.0),
    small=dict(INTERN_IMAGE["small"], offset_scale=1.0, dw_kernel_size=3),
    base=dict(INTERN_IMAGE["base"], offset_scale=0.5, dw_kernel_size=3),
    large=dict(INTERN_IMAGE["large"], dw_kernel_size=3, dcn_output_bias=True, mlp_fc2_bias=True),
)
