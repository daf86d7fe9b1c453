_base_ = [
    "../_base_/models/mask2former_flash-internimage.py",
    "../_base_/datasets/ade20k_640x640.py",
    "../_base_/schedules/ade20k_adamw_160k.py",
]

pretrained = "https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_s_1k_224.pth"
model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(
        arch="small",
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint=pretrained),
    ),
    decode_head=dict(in_channels=[80, 160, 320, 640]),
)

optim_wrapper = dict(
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(layer_decay_rate=1.0),
    clip_grad=dict(max_norm=0.1),
)
train_cfg = dict(val_interval=5000)
default_hooks = dict(checkpoint=dict(interval=5000))
