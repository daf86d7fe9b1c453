# R-FCN on ResNet-50 whose conv5 is dilated instead of strided, so that it has the stride of
# conv4, 16. Proposals come from conv4 and are classified on conv5. Anchors, numbers of proposals
# and samples are those of R-FCN's authors on COCO; the rest is as in MMDetection's detectors.
_base_ = "mmdet::_base_/models/faster-rcnn_r50-caffe-dc5.py"

custom_imports = dict(imports=["mmdcn.models.heads.r_fcn"], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(
        out_indices=(2, 3),
        style="pytorch",
        norm_cfg=dict(requires_grad=True),
        init_cfg=dict(
            # the file behind torchvision://resnet50, without the need for torchvision
            checkpoint="https://download.pytorch.org/models/resnet50-0676ba61.pth"
        ),
    ),
    rpn_head=dict(
        type="mmdcn.RPNHead",
        in_channels=1024,
        feat_channels=512,
        anchor_generator=dict(scales=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        _delete_=True,
        type="mmdcn.RFCNRoIHead",
        bbox_head=dict(
            type="mmdcn.RFCNBBoxHead",
            num_classes=80,
            roi_layer=dict(type="PSRoIPool", output_size=7),
            bbox_coder=dict(
                type="DeltaXYWHBBoxCoder",
                target_means=[0.0, 0.0, 0.0, 0.0],
                target_stds=[0.1, 0.1, 0.2, 0.2],
            ),
        ),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=6000, max_per_img=300),
        rcnn=dict(sampler=dict(num=128)),
    ),
    test_cfg=dict(rpn=dict(max_per_img=300), rcnn=dict(nms=dict(iou_threshold=0.3))),
)
