_base_ = "./r-fcn_r50-c5-dilated_1x_coco.py"

model = dict(
    backbone=dict(
        dcn=dict(type="mmdcn.DCNv2", deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True),
    ),
    roi_head=dict(
        bbox_head=dict(
            roi_layer=dict(
                type="ModulatedDeformPSRoIPoolPack", part_size=7, sample_per_part=4, trans_std=0.1
            )
        )
    ),
)

# the paper's rate for offsets and masks
optim_wrapper = dict(
    constructor="mmdcn.OptimWrapperConstructor", paramwise_cfg=dict(dcn_offset_lr_mult=0.1)
)
