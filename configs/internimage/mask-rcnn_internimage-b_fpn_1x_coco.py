_base_ = [
    "../_base_/models/mask-rcnn_internimage_fpn.py",
    "../_base_/schedules/coco-instance_adamw_1x.py",
]

pretrained = "https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_b_1k_224.pth"
model = dict(
    backbone=dict(
        arch="base",
        drop_path_rate=0.4,
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(in_channels=[112, 224, 448, 896]),
)
