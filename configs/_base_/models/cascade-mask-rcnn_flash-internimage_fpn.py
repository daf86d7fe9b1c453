# Cascade Mask R-CNN on FlashInternImage, whose recipes normalise in the FPN.
_base_ = "./cascade-mask-rcnn_internimage_fpn.py"

model = dict(
    backbone=dict(type="mmdcn.FlashInternImage"),
    neck=dict(norm_cfg=dict(type="mmdcn.LN2d")),
)
