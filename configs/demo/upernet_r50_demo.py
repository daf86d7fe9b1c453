# UPerNet R50, small enough to train from scratch on two CPU cores in minutes, on the data set of
# tools/dataset_converters/deformed_shapes.py.
#
# Narrowed against mmseg's UPerNet R50 512x512:
#   images 128 px; ResNet-50 keeps its depth, with 16 instead of 64 base channels;
#   decode head 48 channels (512), pooled to 1 and 2 cells (1, 2, 3, 6); auxiliary head 32 (256).
# From scratch, so: batch normalisation in place of its synchronised form, AdamW.
_base_ = [
    "../_base_/mmseg.py",
    "mmseg::_base_/models/upernet_r50.py",
    "mmseg::_base_/default_runtime.py",
]

custom_imports = dict(imports=["mmdcn.models"], allow_failed_imports=False)

size = (128, 128)
base_channels = 16
max_iters = 1500
classes = ("background", "star", "crescent", "fish")
palette = [[64, 64, 64], [228, 26, 28], [77, 175, 74], [55, 126, 184]]
norm_cfg = dict(type="BN", requires_grad=True)
in_channels = [base_channels * 4 * 2**i for i in range(4)]

model = dict(
    data_preprocessor=dict(size=size),
    pretrained=None,
    backbone=dict(base_channels=base_channels, stem_channels=base_channels, norm_cfg=norm_cfg),
    decode_head=dict(
        in_channels=in_channels,
        pool_scales=(1, 2),
        channels=48,
        num_classes=len(classes),
        norm_cfg=norm_cfg,
    ),
    auxiliary_head=dict(
        in_channels=in_channels[2], channels=32, num_classes=len(classes), norm_cfg=norm_cfg
    ),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomFlip", prob=[0.25] * 3, direction=["horizontal", "vertical", "diagonal"]),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=size, keep_ratio=True),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="Resize", scale=(s, s), keep_ratio=True) for s in (96, 128, 160)],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [dict(type="LoadAnnotations")],
            [dict(type="PackSegInputs")],
        ],
    ),
]
dataset = dict(
    type="BaseSegDataset",
    data_root="data/deformed_shapes/",
    metainfo=dict(classes=classes, palette=palette),
    reduce_zero_label=True,
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
        pipeline=train_pipeline,
        **dataset,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        pipeline=test_pipeline,
        **dataset,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator

train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=500)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1.5e-3, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=100, end=max_iters, eta_min=0),
]
randomness = dict(seed=0)
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=25, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=250, max_keep_ckpts=2),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(type="SegVisualizationHook"),
)
custom_hooks = [dict(type="mmdcn.ChannelsLastHook")]
