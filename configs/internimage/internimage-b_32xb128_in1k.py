_base_ = [
    "../_base_/models/classifier_internimage.py",
    "../_base_/datasets/imagenet_224.py",
    "../_base_/schedules/imagenet_adamw_300e.py",
]

model = dict(
    backbone=dict(
        arch="base",
        drop_path_rate=0.5,
    ),
    neck=dict(in_channels=896, out_channels=1344),
    head=dict(in_channels=1344),
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)]),
)
