"""UPerNet on InternImage as on ADE20K, narrow and on small crops: many steps a second."""

_base_ = "../../../configs/internimage/upernet_internimage-t_160k_ade20k-512x512.py"

model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(channels=16, depths=(1, 1, 1, 1), groups=(1, 2, 4, 8), init_cfg=None),
    decode_head=dict(in_channels=[16, 32, 64, 128], channels=16),
    auxiliary_head=dict(in_channels=64, channels=16),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(256, 64), ratio_range=(1.0, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(64, 64), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1].transforms[0] = [
    dict(type="Resize", scale=(4 * short, short), keep_ratio=True) for short in (64, 96, 128)
]
workers = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline), **workers)
val_dataloader = workers
test_dataloader = workers
train_cfg = dict(max_iters=6, val_interval=6)
optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = []
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=6))
randomness = dict(seed=0)
