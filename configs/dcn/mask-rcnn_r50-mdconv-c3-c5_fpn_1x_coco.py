_base_ = "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"

custom_imports = dict(imports=["mmdcn.models"], allow_failed_imports=False)

model = dict(
    backbone=dict(
        # the file behind torchvision://resnet50, without the need for torchvision
        init_cfg=dict(checkpoint="https://download.pytorch.org/models/resnet50-0676ba61.pth"),
        dcn=dict(type="mmdcn.DCNv2", deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True),
    )
)

# the paper's rate for offsets and masks
optim_wrapper = dict(
    constructor="mmdcn.OptimWrapperConstructor", paramwise_cfg=dict(dcn_offset_lr_mult=0.1)
)
