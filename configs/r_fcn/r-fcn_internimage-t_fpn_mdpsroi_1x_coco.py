# InternImage has no dilated last stage: an FPN brings it to the stride of the third one, 16.
# Proposals come from both levels of the FPN, boxes from the first. Optimizer as in the other
# InternImage recipes.
_base_ = "./r-fcn_r50-c5-dilated_1x_coco.py"

pretrained = "https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_t_1k_224.pth"
model = dict(
    backbone=dict(
        _delete_=True,
        type="mmdcn.InternImage",
        arch="tiny",
        out_indices=(2, 3),
        drop_path_rate=0.2,
        init_cfg=dict(type="Pretrained", checkpoint=pretrained),
    ),
    neck=dict(type="FPN", in_channels=[256, 512], out_channels=256, num_outs=2),
    rpn_head=dict(
        in_channels=256,
        feat_channels=256,
        anchor_generator=dict(scales=[2, 4, 8, 16], strides=[16, 32]),
    ),
    roi_head=dict(
        level=0,
        bbox_head=dict(
            in_channels=256,
            roi_layer=dict(
                type="ModulatedDeformPSRoIPoolPack", part_size=7, sample_per_part=4, trans_std=0.1
            ),
        ),
    ),
)
optim_wrapper = dict(
    constructor="mmdcn.LayerDecayOptimWrapperConstructor",
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(layer_decay_rate=1.0),
)
