# R-FCN on ResNet-50, small enough to train from scratch on one CPU core in minutes: the data, backbone
# and schedule of the Mask R-CNN demo.
#
# Against the COCO recipe: conv4 and conv5 are dilated, for a stride of 8 on images of 128 px, and the
# 1x1 convolution has 128 channels (1024). The pooling without offsets samples its bins as that with
# offsets does, so that the offsets are all that differs between the two demos.
_base_ = "./mask-rcnn_r50_fpn_demo.py"

custom_imports = dict(imports=["mmdcn.models.r_fcn"], allow_failed_imports=False)

stride = 8
base_channels = 16
max_epochs = 8

model = dict(
    type="FasterRCNN",
    backbone=dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), out_indices=(2, 3)),
    neck=None,
    rpn_head=dict(
        type="mmdcn.RPNHead",
        in_channels=base_channels * 16,
        anchor_generator=dict(scales=[5, 9], strides=[stride]),
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
val_evaluator = dict(metric="bbox")
test_evaluator = val_evaluator
