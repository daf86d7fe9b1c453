"""The detector with random numbers in the workers of its data loader and in its samplers."""

_base_ = "./tiny_mask_rcnn.py"

custom_imports = dict(imports=["mmdcn.models", "kill_hook"], allow_failed_imports=False)
custom_hooks = [dict(type="mmdcn.EpochSeedHook"), dict(type="KillHook")]

train_dataloader = dict(
    num_workers=1,
    persistent_workers=False,
    dataset=dict(
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
            dict(type="Resize", scale=(96, 96), keep_ratio=True),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackDetInputs"),
        ]
    ),
)
train_cfg = dict(max_epochs=2, val_interval=2)
