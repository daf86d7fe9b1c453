# A classifier on InternImage H or G, whose last two maps are pooled by attention.
_base_ = "./classifier_internimage.py"

model = dict(
    backbone=dict(out_indices=(2, 3), layer_scale=None, with_cp=True),
    neck=dict(type="mmdcn.CLIPProjector"),
    head=dict(in_channels=768, loss=dict(label_smooth_val=0.3)),
)
