# ImageNet-1k at 224 x 224 pixels, with the augmentation of the official InternImage classifiers:
# RandAugment, random erasing, mixup and CutMix; tested on the middle of the image, whose shorter
# side is resized to the same 224.
data_root = "data/imagenet/"
mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
size = 224

data_preprocessor = dict(num_classes=1000, mean=mean, std=std, to_rgb=True)
fill_color = mean[::-1]  # images are BGR until they are batched
rand_augment = dict(
    type="RandAugment",
    policies="timm_increasing",
    num_policies=2,
    total_level=10,
    magnitude_level=9,
    magnitude_std=0.5,
    hparams=dict(pad_val=[round(value) for value in fill_color], interpolation="bicubic"),
)
random_erasing = dict(
    type="RandomErasing",
    erase_prob=0.25,
    mode="rand",
    min_area_ratio=0.02,
    max_area_ratio=1 / 3,
    fill_color=fill_color,
    fill_std=std[::-1],
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="RandomResizedCrop", scale=size, backend="pillow", interpolation="bicubic"),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    rand_augment,
    random_erasing,
    dict(type="PackInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="ResizeEdge", scale=size, edge="short", backend="pillow", interpolation="bicubic"),
    dict(type="CenterCrop", crop_size=size),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="ImageNet", data_root=data_root, split="train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="ImageNet", data_root=data_root, split="val", pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="Accuracy", topk=(1, 5))
test_evaluator = val_evaluator
