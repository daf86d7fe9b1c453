_base_ = "./faster-rcnn_r50-dc5_structures.py"

model = dict(
    backbone=dict(
        dcn=dict(type="mmdcn.DCNv2", deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True),
    )
)
