# 20 epochs of fine-tuning on ImageNet-1k, 512 images at a time, in single precision.
_base_ = "./imagenet_adamw_300e.py"

max_epochs, warmup = 20, 2
optim_wrapper = dict(optimizer=dict(lr=2e-5))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, end=warmup, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        begin=warmup,
        end=max_epochs,
        T_max=max_epochs - warmup,
        eta_min=0,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=512)
