_base_ = [
    "../_base_/models/mask-rcnn_flash-internimage_fpn.py",
    "../_base_/schedules/coco-instance_adamw_1x.py",
]

pretrained = "https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_b_1k_224.pth"
model = dict(
    backbone=dict(
        arch="base",
        drop_path_rate=0.3,
        with_cp=True,
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(in_channels=[112, 224, 448, 896]),
)

default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
