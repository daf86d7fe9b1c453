# Mask R-CNN on InternImage. The configs add the size of the backbone and the channels of the neck.
_base_ = "mmdet::_base_/models/mask-rcnn_r50_fpn.py"

custom_imports = dict(imports=["mmdcn.models"], allow_failed_imports=False)

model = dict(
    backbone=dict(_delete_=True, type="mmdcn.InternImage", init_cfg=dict(type="Pretrained"))
)
