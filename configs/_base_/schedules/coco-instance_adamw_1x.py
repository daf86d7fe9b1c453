# 12 epochs on COCO's boxes and masks, 8 GPUs with 2 images each.
_base_ = [
    "mmdet::_base_/datasets/coco_instance.py",
    "mmdet::_base_/schedules/schedule_1x.py",
    "mmdet::_base_/default_runtime.py",
]

val_evaluator = dict(classwise=True)
test_evaluator = val_evaluator

optim_wrapper = dict(
    constructor="mmdcn.LayerDecayOptimWrapperConstructor",
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(layer_decay_rate=1.0),
)
default_hooks = dict(checkpoint=dict(save_best="coco/bbox_mAP", max_keep_ckpts=3))
