_base_ = [
    "../_base_/models/upernet_internimage.py",
    "../_base_/datasets/ade20k_640x640.py",
    "../_base_/schedules/ade20k_adamw_160k.py",
]

pretrained = (
    "https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_xl_22k_192to384.pth"
)
model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(
        arch="xlarge",
        drop_path_rate=0.4,
        init_cfg=dict(checkpoint=pretrained),
    ),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768),
)

optim_wrapper = dict(
    optimizer=dict(lr=2e-5),
    paramwise_cfg=dict(layer_decay_rate=0.94),
    clip_grad=dict(max_norm=0.1),
)
