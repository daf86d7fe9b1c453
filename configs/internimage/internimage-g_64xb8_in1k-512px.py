_base_ = [
    "../_base_/models/classifier_internimage_clip-projector.py",
    "../_base_/datasets/imagenet_512.py",
    "../_base_/schedules/imagenet_adamw_20e.py",
]

pretrained = (
    "https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_g_pretrainto22k_384.pth"
)
model = dict(
    backbone=dict(
        arch="giant",
        drop_path_rate=0.4,
        init_cfg=dict(type="Pretrained", checkpoint=pretrained),
    ),
    neck=dict(in_channels=(2048, 4096)),
)
train_dataloader = dict(batch_size=8)
val_dataloader = dict(batch_size=8)
test_dataloader = val_dataloader
