_base_ = "../_base_/dino-4scale_internimage_1x_coco.py"

pretrained = "https://huggingface.co/OpenGVLab/DCNv4/resolve/main/flash_intern_image_s_1k_224.pth"
model = dict(
    backbone=dict(
        type="mmdcn.FlashInternImage",
        arch="small",
        drop_path_rate=0.3,
        with_cp=True,
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(in_channels=[160, 320, 640]),
)

train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
auto_scale_lr = dict(base_batch_size=32)
