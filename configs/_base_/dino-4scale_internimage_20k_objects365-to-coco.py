# Fine-tunes on COCO a DINO that was trained on Objects365: large images, 20,000 iterations, one
# image per GPU.
_base_ = "./dino-4scale_internimage_1x_coco.py"

model = dict(
    backbone=dict(with_cp=True, init_cfg=None),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=1000)),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="RandomResize", scale=[(2000, 600), (2000, 1800)], keep_ratio=True),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(2000, 1000), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]
train_dataloader = dict(
    batch_size=1,
    sampler=dict(type="InfiniteSampler"),
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=20000, val_interval=200)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
]
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.94, offset_lr_scale=1e-3))
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=200))
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(_delete_=True)  # the number of GPUs is not published
