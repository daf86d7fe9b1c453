_base_ = [
    "../_base_/models/mask-rcnn_internimage_fpn.py",
    "../_base_/schedules/coco-instance_adamw_1x.py",
]

pretrained = "https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_t_1k_224.pth"
model = dict(
    backbone=dict(
        arch="tiny",
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
