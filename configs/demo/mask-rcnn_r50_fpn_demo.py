# Mask R-CNN R50-FPN, small enough to train from scratch on two CPU cores in minutes, on the data
# set of tools/dataset_converters/deformed_shapes.py.
#
# Narrowed against mmdet's Mask R-CNN R50-FPN 1x:
#   images 128 px; ResNet-50 keeps its depth, with 16 instead of 64 base channels;
#   FPN and RPN 64 channels (256), 4 levels (5); box head 256 units (1024), one box for all classes;
#   mask head 2 convolutions of 48 channels (4 of 256), upsampled bilinearly;
#   64 anchors and 32 RoIs sampled per image (256 and 512), 100 proposals (1000).
# RoIAlign is mmdcn's deformable RoI pooling without offsets, the same numbers in less time.
# From scratch, so: nothing frozen, batch normalisation trained, also in FPN and mask head; AdamW.
_base_ = [
    "mmdet::_base_/models/mask-rcnn_r50_fpn.py",
    "mmdet::_base_/datasets/coco_instance.py",
    "mmdet::_base_/default_runtime.py",
]

custom_imports = dict(imports=["mmdcn.models"], allow_failed_imports=False)

size = 128
width = 64
base_channels = 16
max_epochs = 9
num_classes = 3
norm_cfg = dict(type="BN", requires_grad=True)
roi_extractor = dict(
    type="mmdcn.SingleRoIExtractor",
    out_channels=width,
    finest_scale=28,  # objects below 56 px from the finest level
    roi_layer=dict(type="DeformRoIPool", sampling_ratio=1),
)

model = dict(
    backbone=dict(base_channels=base_channels, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(
        in_channels=[base_channels * 4 * 2**i for i in range(4)],
        out_channels=width,
        num_outs=4,
        norm_cfg=norm_cfg,
    ),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=roi_extractor,
        bbox_head=dict(
            in_channels=width, fc_out_channels=256, num_classes=num_classes, reg_class_agnostic=True
        ),
        mask_roi_extractor=roi_extractor,
        mask_head=dict(
            num_convs=2,
            in_channels=width,
            conv_out_channels=48,
            upsample_cfg=dict(type="bilinear", scale_factor=2),
            num_classes=num_classes,
            norm_cfg=norm_cfg,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=300, max_per_img=100),
        rcnn=dict(sampler=dict(num=32, pos_fraction=0.5)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100), rcnn=dict(max_per_img=50)),
)

data_root = "data/deformed_shapes/"
metainfo = dict(classes=("star", "crescent", "fish"))
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomFlip", prob=[0.25] * 3, direction=["horizontal", "vertical", "diagonal"]),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(size, size), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,  # an image takes a millisecond
    persistent_workers=False,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file="annotations/instances_train.json",
        data_prefix=dict(img="train/"),
        filter_cfg=dict(_delete_=True, filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file="annotations/instances_val.json",
        data_prefix=dict(img="val/"),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "annotations/instances_val.json", classwise=True)
test_evaluator = val_evaluator

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=max_epochs, val_interval=3)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1.5e-3, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type="CosineAnnealingLR",
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        eta_min=0,
        convert_to_iter_based=True,
    ),
]
randomness = dict(seed=0)
default_hooks = dict(logger=dict(interval=25), checkpoint=dict(interval=1, max_keep_ckpts=2))
custom_hooks = [
    # A training that was interrupted ends with the weights of one that was not.
    dict(type="mmdcn.EpochSeedHook"),
    # Several processes go on with the same statistics.
    dict(type="SyncBuffersHook"),
]
