_base_ = [
    "../_base_/models/upernet_internimage.py",
    "../_base_/datasets/ade20k_896x896.py",
    "../_base_/schedules/ade20k_adamw_160k.py",
]

pretrained = (
    "https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_g_pretrainto22k_384.pth"
)
model = dict(
    data_preprocessor=dict(size=(896, 896)),
    backbone=dict(
        arch="giant",
        drop_path_rate=0.5,
        with_cp=True,
        init_cfg=dict(checkpoint=pretrained),
    ),
    decode_head=dict(in_channels=[512, 1024, 2048, 4096]),
    auxiliary_head=dict(in_channels=2048),
)

train_dataloader = dict(batch_size=1)
optim_wrapper = dict(
    optimizer=dict(lr=2e-5),
    paramwise_cfg=dict(layer_decay_rate=0.95),
    clip_grad=dict(max_norm=0.1),
)
