_base_ = [
    "../_base_/models/mask2former_flash-internimage.py",
    "../_base_/datasets/ade20k_640x640.py",
    "../_base_/schedules/ade20k_adamw_160k.py",
]

pretrained = "https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_l_22k_384.pth"
model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(
        arch="large",
        drop_path_rate=0.5,
        with_cp=True,
        init_cfg=dict(checkpoint=pretrained),
    ),
    decode_head=dict(in_channels=[160, 320, 640, 1280]),
)

optim_wrapper = dict(
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(layer_decay_rate=0.94),
    clip_grad=dict(max_norm=0.1),
)
train_cfg = dict(val_interval=2000)
default_hooks = dict(checkpoint=dict(interval=2000))
