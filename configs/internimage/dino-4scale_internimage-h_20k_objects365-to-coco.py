_base_ = "../_base_/dino-4scale_internimage_20k_objects365-to-coco.py"

model = dict(
    backbone=dict(
        arch="huge",
        drop_path_rate=0.5,
    ),
    neck=dict(in_channels=[640, 1280, 2560]),
)
