_base_ = "../_base_/dino-4scale_internimage_1x_coco.py"

pretrained = (
    "https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_l_22k_192to384.pth"
)
model = dict(
    backbone=dict(
        arch="large",
        drop_path_rate=0.4,
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(in_channels=[320, 640, 1280]),
)
