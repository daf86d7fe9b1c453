# The same, with the average over the last weights and buffers, which is what is tested and saved.
_base_ = "./coco-instance_adamw_3x.py"

custom_hooks = [
    dict(
        type="EMAHook",
        ema_type="ExpMomentumEMA",
        momentum=1e-4,
        gamma=2000,
        update_buffers=True,
        priority=49,
    )
]
