_base_ = [
    "../_base_/models/cascade-mask-rcnn_internimage_fpn.py",
    "../_base_/schedules/coco-instance_adamw_3x_ema.py",
]

pretrained = (
    "https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_l_22k_192to384.pth"
)
model = dict(
    backbone=dict(
        arch="large",
        drop_path_rate=0.4,
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(in_channels=[160, 320, 640, 1280]),
)

optim_wrapper = dict(
    optimizer=dict(lr=2e-4), paramwise_cfg=dict(layer_decay_rate=0.9, offset_lr_scale=0.01)
)
auto_scale_lr = dict(base_batch_size=64)
