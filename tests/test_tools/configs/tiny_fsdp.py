"""DINO with the structure of InternImage-H, trained in shards, in a fraction of a second a step."""

_base_ = "../../../configs/internimage/dino-4scale_internimage-h_20k_objects365-to-coco_fsdp.py"

classes = ("star", "crescent", "fish")
metainfo = dict(classes=classes)
data_root = "data/deformed_shapes/"

model = dict(
    backbone=dict(
        channels=16,
        depths=(1, 1, 2, 1),
        groups=(1, 2, 4, 8),
        level2_post_norm_block_ids=(0, 1),
    ),
    neck=dict(in_channels=[32, 64, 128]),
    num_queries=20,
    encoder=dict(num_layers=1),
    decoder=dict(num_layers=2),
    bbox_head=dict(num_classes=3),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=10)),
    test_cfg=dict(max_per_img=20),
)

load = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True)]
meta_keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
pipeline = [
    *load,
    dict(type="Resize", scale=(96, 96), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=meta_keys),
]
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file="annotations/instances_train.json",
        data_prefix=dict(img="train/"),
        filter_cfg=dict(min_size=0),
        pipeline=pipeline,
    ),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file="annotations/instances_val.json",
        data_prefix=dict(img="val/"),
        pipeline=pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "annotations/instances_val.json")
test_evaluator = val_evaluator

train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
randomness = dict(seed=0)
