_base_ = [
    "../_base_/models/upernet_flash-internimage.py",
    "../_base_/datasets/ade20k_512x512.py",
    "../_base_/schedules/ade20k_adamw_160k.py",
]

pretrained = "https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_t_1k_224.pth"
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        arch="tiny",
        drop_path_rate=0.2,
        with_cp=True,
        init_cfg=dict(checkpoint=pretrained),
    ),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)

# the one recipe that does not resize to multiples of 32
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(2048, 512), keep_ratio=True),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
