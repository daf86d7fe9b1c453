# Faster R-CNN on one map, the dilated conv5 of a narrow ResNet-50, as in Deformable ConvNets.
_base_ = ["./mask-rcnn_r50_fpn_demo.py"]

base_channels = 16
stride = 16
max_epochs = 6
classes = ("hook", "fork", "cross", "ring")
pretrained = "work_dirs/resnet50_singles/epoch_8.pth"

model = dict(
    type="FasterRCNN",
    backbone=dict(
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        out_indices=(3,),
        init_cfg=dict(_delete_=True, type="Pretrained", checkpoint=pretrained, prefix="backbone."),
    ),
    neck=dict(
        _delete_=True,
        type="ChannelMapper",
        in_channels=[base_channels * 32],
        out_channels=64,
        kernel_size=1,
        act_cfg=None,
        norm_cfg=dict(type="BN"),
        num_outs=1,
    ),
    rpn_head=dict(
        in_channels=64,
        anchor_generator=dict(scales=[1.5, 3, 6], strides=[stride]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(featmap_strides=[stride]),
        bbox_head=dict(in_channels=64, num_classes=len(classes)),
        mask_roi_extractor=None,
        mask_head=None,
    ),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=[0.25] * 3, direction=["horizontal", "vertical", "diagonal"]),
    dict(type="PackDetInputs"),
]
data_root = "data/deformed_structures/"
dataset = dict(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **dataset))
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "annotations/instances_val.json", metric="bbox")
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=max_epochs, val_interval=3)
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
