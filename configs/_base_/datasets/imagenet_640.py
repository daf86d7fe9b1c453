# ImageNet-1k at 640 x 640 pixels for the fine-tuning of large classifiers.
_base_ = "./imagenet_384.py"

size = 640
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1].scale = size
test_pipeline[1].scale = size
test_pipeline[2].crop_size = size
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
