_base_ = [
    "../_base_/models/classifier_internimage.py",
    "../_base_/datasets/imagenet_224.py",
    "../_base_/schedules/imagenet_adamw_300e.py",
]

model = dict(
    backbone=dict(
        type="mmdcn.FlashInternImage",
        arch="tiny",
        layer_scale=None,
        drop_path_rate=0.1,
    ),
    neck=dict(in_channels=512, out_channels=768),
    head=dict(in_channels=768),
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)]),
)
