# R-FCN on ResNet-50, small enough to train from scratch on one CPU core in minutes: data, widths
# and optimizer of the Mask R-CNN demo. The 1x1 convolution has 128 channels (1024 in the COCO
# recipe).
#
# The pooling without offsets samples its bins as that with offsets does, so that the offsets are
# all that differs between the heads of the two R-FCN demos.
_base_ = "./mask-rcnn_r50_fpn_demo.py"

custom_imports = dict(imports=["mmdcn.models.heads.r_fcn"], allow_failed_imports=False)

stride = 16
base_channels = 16
max_epochs = 8

model = dict(
    type="FasterRCNN",
    backbone=dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), out_indices=(2, 3)),
    neck=None,
    rpn_head=dict(
        type="mmdcn.RPNHead",
        in_channels=base_channels * 16,
        anchor_generator=dict(scales=[3.5, 4.5], strides=[stride]),
    ),
    roi_head=dict(
        _delete_=True,
        type="mmdcn.RFCNRoIHead",
        bbox_head=dict(
            type="mmdcn.RFCNBBoxHead",
            in_channels=base_channels * 32,
            feat_channels=128,
            featmap_stride=stride,
            num_classes=3,
            norm_cfg=dict(type="BN"),
            roi_layer=dict(type="DeformPSRoIPool", output_size=7, sample_per_part=4),
        ),
    ),
)

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(
                type="RandomFlip",
                prob=[0.25] * 3,
                direction=["horizontal", "vertical", "diagonal"],
            ),
            dict(type="PackDetInputs"),
        ]
    )
)
train_cfg = dict(max_epochs=max_epochs, val_interval=4)
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
val_evaluator = dict(metric="bbox")
test_evaluator = val_evaluator
