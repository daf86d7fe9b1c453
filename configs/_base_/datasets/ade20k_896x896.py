# ADE20K in crops of 896 x 896 pixels.
_base_ = "./ade20k_640x640.py"

size = 896
train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = (4 * size, size)
train_pipeline[3].crop_size = (size, size)
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (4 * size, size)
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1].transforms[0] = [
    dict(type="Resize", scale=(4 * short, short), keep_ratio=True)
    for short in (448, 672, 896, 1120, 1344, 1568)
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
