# A classifier on InternImage T to XL for ImageNet-1k. The configs add the size of the backbone and
# the channels of neck and head.
custom_imports = dict(
    imports=["mmdcn.models", "mmdcn.models.necks", "mmdcn.engine"], allow_failed_imports=False
)

model = dict(
    type="ImageClassifier",
    backbone=dict(type="mmdcn.InternImage", out_indices=(3,), layer_scale=1e-5),
    neck=dict(type="mmdcn.ConvPooling"),
    head=dict(
        type="LinearClsHead",
        num_classes=1000,
        init_cfg=dict(type="TruncNormal", layer="Linear", std=0.02, bias=0),
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
        cal_acc=False,
    ),
)
