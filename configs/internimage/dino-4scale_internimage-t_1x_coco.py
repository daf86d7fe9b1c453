_base_ = "../_base_/dino-4scale_internimage_1x_coco.py"

pretrained = "https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_t_1k_224.pth"
model = dict(
    backbone=dict(
        arch="tiny",
        drop_path_rate=0.2,
        with_cp=True,
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(in_channels=[128, 256, 512]),
    test_cfg=dict(max_per_img=100),
)
