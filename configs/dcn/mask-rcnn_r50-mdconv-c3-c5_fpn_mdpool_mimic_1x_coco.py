# The whole of Deformable ConvNets v2: modulated deformable convolutions and RoI pooling, trained
# with R-CNN feature mimicking.
_base_ = "./mask-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py"

custom_imports = dict(
    imports=["mmdcn.models", "mmdcn.models.detectors.mimic"], allow_failed_imports=False
)

model = dict(
    type="mmdcn.MimicRCNN",
    roi_head=dict(
        type="mmdcn.MimicRoIHead",
        bbox_roi_extractor=dict(
            type="mmdcn.SingleRoIExtractor",
            roi_layer=dict(
                _delete_=True,
                type="mmdcn.ModulatedDeformRoIPoolPack",
                output_size=7,
                output_channels=256,
            ),
        ),
    ),
)
