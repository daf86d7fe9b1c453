# A narrow InternImage classifier on the folder data/singles, for a minute of training.
_base_ = "../../../configs/internimage/internimage-t_32xb128_in1k.py"

model = dict(
    backbone=dict(channels=16, depths=(1, 1, 1, 1), groups=(1, 2, 4, 8), layer_scale=None),
    neck=dict(in_channels=128, out_channels=192),
    head=dict(in_channels=192, num_classes=7),
)
data_preprocessor = dict(num_classes=7)
pipeline = [dict(type="LoadImageFromFile"), dict(type="PackInputs")]
dataset = dict(_delete_=True, type="CustomDataset", with_label=True, pipeline=pipeline)
train_dataloader = dict(
    batch_size=14,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root="data/singles/train", **dataset),
)
val_dataloader = dict(
    batch_size=7,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root="data/singles/val", **dataset),
)
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=2)
param_scheduler = [dict(type="LinearLR", start_factor=0.1, end=5, by_epoch=False)]
optim_wrapper = dict(optimizer=dict(lr=1e-3))
