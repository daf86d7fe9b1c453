_base_ = "./r-fcn_r50_demo.py"

model = dict(
    backbone=dict(
        dcn=dict(type="mmdcn.DCNv2", deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True),
    ),
    roi_head=dict(bbox_head=dict(roi_layer=dict(type="ModulatedDeformPSRoIPoolPack"))),
)
