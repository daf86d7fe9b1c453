# 300 epochs of ImageNet-1k, 4096 images at a time; the official runs are in mixed precision.
default_scope = "mmpretrain"
max_epochs, warmup = 300, 20
lr = 4e-3  # 5e-4 per 512 images

optim_wrapper = dict(
    type="OptimWrapper",
    constructor="mmdcn.ClassifierLayerDecayOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    paramwise_cfg=dict(layer_decay_rate=1.0),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, end=warmup, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        begin=warmup,
        end=max_epochs,
        T_max=max_epochs - warmup,
        eta_min=lr / 100,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
custom_hooks = [dict(type="EMAHook", momentum=1e-4, update_buffers=True, priority="ABOVE_NORMAL")]
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=100),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=3, save_best="auto"),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
log_level = "INFO"
load_from = None
resume = False
randomness = dict(seed=None, deterministic=False)
auto_scale_lr = dict(enable=False, base_batch_size=4096)
