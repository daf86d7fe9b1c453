_base_ = [
    "../_base_/models/classifier_internimage_clip-projector.py",
    "../_base_/datasets/imagenet_640.py",
    "../_base_/schedules/imagenet_adamw_20e.py",
]

pretrained = (
    "https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_h_jointto22k_384.pth"
)
model = dict(
    backbone=dict(
        arch="huge",
        drop_path_rate=0.2,
        init_cfg=dict(type="Pretrained", checkpoint=pretrained),
    ),
    neck=dict(in_channels=(1280, 2560)),
)
