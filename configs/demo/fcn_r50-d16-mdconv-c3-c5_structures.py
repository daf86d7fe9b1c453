_base_ = "./fcn_r50-d16_structures.py"

model = dict(
    backbone=dict(
        dcn=dict(type="mmdcn.DCNv2", deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True),
    )
)
