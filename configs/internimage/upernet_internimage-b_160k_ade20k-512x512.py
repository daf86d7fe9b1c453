_base_ = [
    "../_base_/models/upernet_internimage.py",
    "../_base_/datasets/ade20k_512x512.py",
    "../_base_/schedules/ade20k_adamw_160k.py",
]

pretrained = "https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_b_1k_224.pth"
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        arch="base",
        drop_path_rate=0.4,
        init_cfg=dict(checkpoint=pretrained),
    ),
    decode_head=dict(in_channels=[112, 224, 448, 896]),
    auxiliary_head=dict(in_channels=448),
)
