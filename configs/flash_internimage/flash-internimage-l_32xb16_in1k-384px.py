_base_ = [
    "../_base_/models/classifier_internimage.py",
    "../_base_/datasets/imagenet_384.py",
    "../_base_/schedules/imagenet_adamw_20e.py",
]

pretrained = "https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_l_22k_384.pth"
model = dict(
    backbone=dict(
        type="mmdcn.FlashInternImage",
        arch="large",
        drop_path_rate=0.1,
        with_cp=True,
        init_cfg=dict(type="Pretrained", checkpoint=pretrained),
    ),
    neck=dict(in_channels=1280, out_channels=1920),
    head=dict(in_channels=1920, loss=dict(label_smooth_val=0.3)),
)
