"""Settings of the published models, as their detection and segmentation configs have them.

``drop_path_rate`` is not among them: it belongs to the training recipe.
"""

# The fields of `Settings` in which the official defaults of a model differ from it.
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
