# The Deformable Faster R-CNN of Deformable ConvNets: the last blocks of conv3 and conv4 and all of
# conv5 are deformable, in four groups; conv5 is dilated instead of strided. Proposals come from
# conv4, and regions are pooled from 256 channels made of conv5.
_base_ = [
    "mmdet::_base_/models/faster-rcnn_r50-caffe-dc5.py",
    "../_base_/schedules/coco-dcn_16e.py",
]

custom_imports = dict(
    imports=["mmdcn.models.backbones.resnet", "mmdcn.models.heads.r_fcn", "mmdcn.models.necks"],
    allow_failed_imports=False,
)

model = dict(
    backbone=dict(
        type="mmdcn.ResNet",
        depth=101,
        out_indices=(2, 3),
        dcn=dict(type="mmdcn.DCN", deform_groups=4, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True),
        dcn_blocks=(0, 1, 1, 3),
        init_cfg=dict(checkpoint="open-mmlab://detectron2/resnet101_caffe"),
    ),
    neck=dict(type="mmdcn.LastMapConv", in_channels=2048, out_channels=256),
    rpn_head=dict(
        type="mmdcn.RPNHead",
        in_channels=1024,
        feat_channels=512,
        anchor_generator=dict(scales=[4, 8, 16, 32]),
        loss_bbox=dict(type="SmoothL1Loss", beta=1 / 9),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            type="mmdcn.SingleRoIExtractor",
            roi_layer=dict(
                _delete_=True,
                type="mmdcn.DeformRoIPoolPack",
                output_size=7,
                output_channels=256,
                sampling_ratio=4,
                num_offset_fcs=1,
            ),
            out_channels=256,
            start_level=1,
        ),
        bbox_head=dict(in_channels=256, loss_bbox=dict(type="SmoothL1Loss", beta=1.0)),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=6000, max_per_img=300),
        # what overlaps no object by a tenth is left out
        rcnn=dict(assigner=dict(neg_iou_thr=(0.1, 0.5)), sampler=dict(num=128)),
    ),
    test_cfg=dict(
        rpn=dict(max_per_img=300), rcnn=dict(score_thr=1e-3, nms=dict(iou_threshold=0.3))
    ),
)

# 4 GPUs; the offsets of the pooling learn slowly
optim_wrapper = dict(
    constructor="mmdcn.OptimWrapperConstructor",
    optimizer=dict(lr=4 * 5e-4, weight_decay=5e-4 / 4),
    paramwise_cfg=dict(custom_keys={"offset_fc": dict(lr_mult=0.01)}),
)
auto_scale_lr = dict(base_batch_size=4)
