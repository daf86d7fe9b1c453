# FCN on ResNet-50 of stride 16, narrowed to 16 base channels, on the structures of
# tools/dataset_converters/deformed_shapes.py, from weights of configs/demo/resnet50_singles.py.
_base_ = ["./upernet_r50_demo.py"]

base_channels = 16
max_iters = 1200
classes = ("background", "hook", "fork", "cross", "ring")
palette = [[64, 64, 64], [228, 26, 28], [77, 175, 74], [55, 126, 184], [255, 200, 40]]
norm_cfg = dict(type="BN", requires_grad=True)
pretrained = "work_dirs/resnet50_singles/epoch_8.pth"

model = dict(
    backbone=dict(
        type="mmdet.ResNet",
        _delete_=True,
        depth=50,
        base_channels=base_channels,
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        norm_eval=False,
        style="pytorch",
        init_cfg=dict(type="Pretrained", checkpoint=pretrained, prefix="backbone."),
    ),
    decode_head=dict(
        _delete_=True,
        type="FCNHead",
        in_channels=base_channels * 32,
        in_index=3,
        channels=64,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=len(classes),
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(num_classes=len(classes)),
)
dataset = dict(
    data_root="data/deformed_structures/", metainfo=dict(classes=classes, palette=palette)
)
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dataset)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dataset)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=max_iters, val_interval=600)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=100, end=max_iters, eta_min=0),
]
optim_wrapper = dict(optimizer=dict(lr=5e-4))
