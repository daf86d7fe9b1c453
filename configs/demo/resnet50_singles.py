# ResNet-50 with 16 instead of 64 base channels, trained to classify single shapes: what the demos
# of detection and segmentation start from, as those of COCO and ADE20K start from ImageNet.
_base_ = ["mmdet::_base_/default_runtime.py"]

custom_imports = dict(
    imports=["mmdcn.models.classifiers", "mmdcn.datasets.registered"], allow_failed_imports=False
)

base_channels = 16
max_epochs = 8

model = dict(
    type="mmdcn.PooledClassifier",
    data_preprocessor=dict(
        type="ImgDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type="mmdet.ResNet",
        depth=50,
        base_channels=base_channels,
        out_indices=(3,),
        norm_eval=False,
        style="pytorch",
    ),
    in_channels=base_channels * 32,
    num_classes=7,
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="RandomFlip", prob=0.5, direction=["horizontal", "vertical"]),
    dict(type="mmdcn.PackLabelledImage"),
]
test_pipeline = [dict(type="LoadImageFromFile"), dict(type="mmdcn.PackLabelledImage")]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="mmdcn.ImageFolder", data_root="data/deformed_singles/train", pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="mmdcn.ImageFolder", data_root="data/deformed_singles/val", pipeline=test_pipeline
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="mmdcn.TopOneAccuracy")
test_evaluator = val_evaluator

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=max_epochs, val_interval=2)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type="CosineAnnealingLR",
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        eta_min=0,
        convert_to_iter_based=True,
    ),
]
randomness = dict(seed=0)
default_hooks = dict(logger=dict(interval=25), checkpoint=dict(interval=1, max_keep_ckpts=2))
custom_hooks = [dict(type="mmdcn.EpochSeedHook")]
