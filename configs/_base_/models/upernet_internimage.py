# UPerNet on InternImage for ADE20K. The configs add the size of the backbone, the channels of the
# heads and the size of the crops.
_base_ = ["../mmseg.py", "mmseg::_base_/models/upernet_r50.py"]

custom_imports = dict(imports=["mmdcn.models"], allow_failed_imports=False)

model = dict(
    pretrained=None,
    backbone=dict(_delete_=True, type="mmdcn.InternImage", init_cfg=dict(type="Pretrained")),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150),
)
