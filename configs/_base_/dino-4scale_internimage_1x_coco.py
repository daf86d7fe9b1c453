# DINO on InternImage, 12 epochs on COCO, 8 GPUs with 2 images each. The configs add the size of the
# backbone, the channels of the neck and the learning rates.
_base_ = "mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py"

custom_imports = dict(
    imports=["mmdcn.models.detectors", "mmdcn.models.heads.dino"], allow_failed_imports=False
)

model = dict(
    type="mmdcn.DINO",
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(
        _delete_=True,
        type="mmdcn.InternImage",
        out_indices=(1, 2, 3),
        init_cfg=dict(type="Pretrained"),
    ),
    bbox_head=dict(type="mmdcn.DINOHead"),
)

scales = [(short, 1333) for short in range(480, 801, 32)]
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(
        type="RandomChoice",
        transforms=[
            [dict(type="RandomChoiceResize", scales=scales, keep_ratio=True)],
            [
                dict(
                    type="RandomChoiceResize",
                    scales=[(400, 4200), (500, 4200), (600, 4200)],
                    keep_ratio=True,
                ),
                dict(
                    type="RandomCrop",
                    crop_type="absolute_range",
                    crop_size=(384, 600),
                    allow_negative_crop=False,
                ),
                dict(type="RandomChoiceResize", scales=scales, keep_ratio=True),
            ],
        ],
    ),
    dict(type="PackDetInputs"),
]
# MMDetection's DINO keeps images without objects, the official recipes leave them out.
train_dataloader = dict(
    dataset=dict(filter_cfg=dict(filter_empty_gt=True), pipeline=train_pipeline)
)
val_evaluator = dict(classwise=True)
test_evaluator = val_evaluator

optim_wrapper = dict(
    constructor="mmdcn.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(_delete_=True, layer_decay_rate=0.9),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", begin=0, end=12, by_epoch=True, milestones=[11], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(save_best="coco/bbox_mAP", max_keep_ckpts=3))
