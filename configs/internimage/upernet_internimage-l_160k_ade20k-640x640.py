_base_ = [
    "../_base_/models/upernet_internimage.py",
    "../_base_/datasets/ade20k_640x640.py",
    "../_base_/schedules/ade20k_adamw_160k.py",
]

pretrained = (
    "https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_l_22k_192to384.pth"
)
model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(
        arch="large",
        drop_path_rate=0.4,
        init_cfg=dict(checkpoint=pretrained),
    ),
    decode_head=dict(in_channels=[160, 320, 640, 1280]),
    auxiliary_head=dict(in_channels=640),
)

optim_wrapper = dict(
    optimizer=dict(lr=2e-5),
    paramwise_cfg=dict(layer_decay_rate=0.94),
    clip_grad=dict(max_norm=0.1),
)
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1].transforms[0] = [
    dict(type="Resize", scale=(4 * short, short), keep_ratio=True) for short in (480, 640, 800)
]
