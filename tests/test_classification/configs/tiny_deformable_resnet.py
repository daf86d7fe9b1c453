# MMPretrain's ResNet, which knows no deformable layers, with some.
_base_ = "./tiny_internimage.py"

model = dict(
    _delete_=True,
    type="ImageClassifier",
    backbone=dict(
        type="mmdcn.Deformable",
        model=dict(type="ResNet", depth=18, base_channels=8, stem_channels=8, num_stages=4),
        layers=r"layer[34]\..*conv2",
        layer_type="DCNv2",
    ),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="LinearClsHead",
        num_classes=7,
        in_channels=64,
        loss=dict(type="CrossEntropyLoss"),
        cal_acc=False,
    ),
)
optim_wrapper = dict(
    _delete_=True, type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05)
)
