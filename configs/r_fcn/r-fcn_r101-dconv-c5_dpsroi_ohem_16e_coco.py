# Model and training of the paper's authors. The other recipes train as MMDetection does.
_base_ = [
    "../_base_/models/r-fcn_r50-c5-dilated.py",
    "../_base_/schedules/coco-dcn_16e.py",
]

custom_imports = dict(
    imports=["mmdcn.models.heads.r_fcn", "mmdcn.models.task_modules"], allow_failed_imports=False
)

model = dict(
    data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False),
    backbone=dict(
        depth=101,
        norm_cfg=dict(requires_grad=False),
        style="caffe",
        dcn=dict(type="mmdcn.DCN", deform_groups=4, fallback_on_stride=False),
        stage_with_dcn=(False, False, False, True),
        init_cfg=dict(checkpoint="open-mmlab://detectron2/resnet101_caffe"),
    ),
    rpn_head=dict(loss_bbox=dict(type="SmoothL1Loss", beta=1 / 9)),
    roi_head=dict(
        bbox_head=dict(
            roi_layer=dict(
                type="DeformPSRoIPoolPack", part_size=7, sample_per_part=4, trans_std=0.1
            )
        )
    ),
    train_cfg=dict(rcnn=dict(sampler=dict(_delete_=True, type="mmdcn.OHEMSampler", num=128))),
    test_cfg=dict(rcnn=dict(score_thr=1e-3)),
)

# 8 GPUs; the convolution with 1024 channels after conv5 learns faster
optim_wrapper = dict(
    constructor="mmdcn.OptimWrapperConstructor",
    optimizer=dict(lr=8 * 5e-4, weight_decay=5e-4 / 8),
    paramwise_cfg=dict(custom_keys={"bbox_head.conv.conv": dict(lr_mult=3.0)}),
)
auto_scale_lr = dict(base_batch_size=8)
