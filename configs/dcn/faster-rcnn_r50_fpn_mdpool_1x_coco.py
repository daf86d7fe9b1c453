_base_ = "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"

custom_imports = dict(imports=["mmdcn.models"], allow_failed_imports=False)

model = dict(
    backbone=dict(
        # the file behind torchvision://resnet50, without the need for torchvision
        init_cfg=dict(checkpoint="https://download.pytorch.org/models/resnet50-0676ba61.pth"),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            type="mmdcn.SingleRoIExtractor",
            roi_layer=dict(
                _delete_=True,
                type="mmdcn.ModulatedDeformRoIPoolPack",
                output_size=7,
                output_channels=256,
            ),
        )
    ),
)

# the paper's rate for offsets and masks
optim_wrapper = dict(
    constructor="mmdcn.OptimWrapperConstructor", paramwise_cfg=dict(dcn_offset_lr_mult=0.1)
)
