_base_ = "../_base_/dino-4scale_internimage_1x_coco.py"

pretrained = "https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_l_22k_384.pth"
model = dict(
    backbone=dict(
        type="mmdcn.FlashInternImage",
        arch="large",
        drop_path_rate=0.4,
        with_cp=True,
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(in_channels=[320, 640, 1280]),
)

optim_wrapper = dict(
    constructor="DefaultOptimWrapperConstructor",
    optimizer=dict(weight_decay=0.05),
    paramwise_cfg=dict(_delete_=True, custom_keys={"backbone": dict(lr_mult=0.1)}),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
