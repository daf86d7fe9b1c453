_base_ = ["../_base_/mmseg.py", "mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py"]

custom_imports = dict(imports=["mmdcn.models"], allow_failed_imports=False)

model = dict(
    backbone=dict(
        dcn=dict(type="mmdcn.DCNv2", deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True),
    )
)
