_base_ = [
    "../_base_/models/classifier_internimage.py",
    "../_base_/datasets/imagenet_384.py",
    "../_base_/schedules/imagenet_adamw_20e.py",
]

pretrained = (
    "https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_xl_22k_192to384.pth"
)
model = dict(
    backbone=dict(
        arch="xlarge",
        drop_path_rate=0.2,
        with_cp=True,
        init_cfg=dict(type="Pretrained", checkpoint=pretrained),
    ),
    neck=dict(in_channels=1536, out_channels=2304),
    head=dict(in_channels=2304, loss=dict(label_smooth_val=0.3)),
)
