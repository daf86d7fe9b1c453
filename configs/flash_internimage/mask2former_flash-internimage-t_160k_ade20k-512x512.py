_base_ = [
    "../_base_/models/mask2former_flash-internimage.py",
    "../_base_/datasets/ade20k_512x512.py",
    "../_base_/schedules/ade20k_adamw_160k.py",
]

pretrained = "https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_t_1k_224.pth"
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        arch="tiny",
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint=pretrained),
    ),
    decode_head=dict(
        in_channels=[64, 128, 256, 512],
        num_queries=100,
        pixel_decoder=dict(encoder=dict(layer_cfg=dict(ffn_cfg=dict(feedforward_channels=1024)))),
    ),
)

optim_wrapper = dict(
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(layer_decay_rate=0.9),
    clip_grad=dict(max_norm=0.01),
)
train_cfg = dict(val_interval=5000)
default_hooks = dict(checkpoint=dict(interval=5000))
