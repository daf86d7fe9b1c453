"""Training settings of the COCO recipes, against a table of the official ones."""

from pathlib import Path

import pytest
from mmengine.config import Config

pytest.importorskip("mmdet")

CONFIGS = Path(__file__).parents[2] / "configs"
# drop_path_rate, with_cp, lr, weight decay, decay by layer, factor of offsets, images per GPU,
# images in all that the learning rate is for. No decay by layer: a tenth of the rate throughout.
RECIPES = {
    "internimage": {
        "mask-rcnn_internimage-t_fpn_1x_coco": (0.2, False, 1e-4, 0.05, 1.0, 1, 2, 16),
        "mask-rcnn_internimage-t_fpn_3x_coco": (0.2, False, 1e-4, 0.05, 1.0, 1, 2, 16),
        "mask-rcnn_internimage-s_fpn_1x_coco": (0.3, False, 1e-4, 0.05, 1.0, 1, 2, 16),
        "mask-rcnn_internimage-s_fpn_3x_coco": (0.3, False, 1e-4, 0.05, 1.0, 1, 2, 16),
        "mask-rcnn_internimage-b_fpn_1x_coco": (0.4, False, 1e-4, 0.05, 1.0, 1, 2, 16),
        "mask-rcnn_internimage-b_fpn_3x_coco": (0.4, False, 1e-4, 0.05, 1.0, 1, 2, 16),
        "cascade-mask-rcnn_internimage-l_fpn_1x_coco": (0.4, False, 1e-4, 0.05, 0.94, 1, 2, 16),
        "cascade-mask-rcnn_internimage-l_fpn_3x_coco": (0.4, False, 2e-4, 0.05, 0.9, 0.01, 2, 64),
        "cascade-mask-rcnn_internimage-xl_fpn_1x_coco": (0.4, False, 1e-4, 0.05, 0.94, 1, 2, 16),
        "cascade-mask-rcnn_internimage-xl_fpn_3x_coco": (0.6, False, 2e-4, 0.05, 0.9, 0.01, 2, 64),
        "dino-4scale_internimage-t_1x_coco": (0.2, True, 1e-4, 1e-4, 0.9, 1, 2, 16),
        "dino-4scale_internimage-l_1x_coco": (0.4, False, 1e-4, 1e-4, 0.9, 1, 2, 16),
        "dino-4scale_internimage-l_0.1x-backbone-lr_1x_coco": (
            0.4, False, 1e-4, 0.05, None, 1, 2, 16
        ),
        "dino-4scale_internimage-h_20k_objects365-to-coco": (
            0.5, True, 1e-4, 1e-4, 0.94, 1e-3, 1, None
        ),
        "dino-4scale_internimage-g_20k_objects365-to-coco": (
            0.5, True, 1e-4, 1e-4, 0.94, 1e-3, 1, None
        ),
        "dino-4scale_cb-internimage-h_20k_objects365-to-coco": (
            0.5, True, 1e-4, 1e-4, 0.94, 1e-3, 1, None
        ),
    },
    "flash_internimage": {
        "mask-rcnn_flash-internimage-t_fpn_1x_coco": (0.2, True, 1e-4, 0.05, 1.0, 1, 2, 16),
        "mask-rcnn_flash-internimage-t_fpn_3x_coco": (0.2, True, 1e-4, 0.05, 1.0, 1, 2, 16),
        "mask-rcnn_flash-internimage-s_fpn_1x_coco": (0.3, True, 1e-4, 0.05, 1.0, 1, 2, 16),
        "mask-rcnn_flash-internimage-s_fpn_3x_coco": (0.4, True, 2e-4, 0.05, 1.0, 1, 8, 64),
        "mask-rcnn_flash-internimage-b_fpn_1x_coco": (0.3, True, 1e-4, 0.05, 1.0, 1, 2, 16),
        "mask-rcnn_flash-internimage-b_fpn_3x_coco": (0.4, True, 2e-4, 0.05, 0.9, 0.01, 4, 64),
        "cascade-mask-rcnn_flash-internimage-l_fpn_1x_coco": (
            0.4, False, 1e-4, 0.05, 0.94, 1, 2, 16
        ),
        "cascade-mask-rcnn_flash-internimage-l_fpn_3x_coco": (
            0.4, True, 2e-4, 0.05, 0.9, 0.01, 4, 64
        ),
        "dino-4scale_flash-internimage-t_1x_coco": (0.2, True, 2e-4, 1e-4, 0.9, 1, 4, 32),
        "dino-4scale_flash-internimage-s_1x_coco": (0.3, True, 2e-4, 1e-4, 0.9, 1, 4, 32),
        "dino-4scale_flash-internimage-b_1x_coco": (0.3, True, 2e-4, 1e-4, 0.9, 1, 4, 32),
        "dino-4scale_flash-internimage-l_1x_coco": (0.4, True, 1e-4, 0.05, None, 1, 2, 16),
    },
}  # fmt: skip
PATHS = {name: CONFIGS / folder / f"{name}.py" for folder in RECIPES for name in RECIPES[folder]}
EMA = {
    "cascade-mask-rcnn_internimage-l_fpn_3x_coco",
    "cascade-mask-rcnn_internimage-xl_fpn_3x_coco",
    "cascade-mask-rcnn_flash-internimage-l_fpn_3x_coco",
}


def test_every_config_is_in_the_table():
    found = [p.stem for f in RECIPES for p in (CONFIGS / f).glob("*coco*.py")]
    found = [stem for stem in found if "ade20k" not in stem]
    assert set(found) == {*PATHS, "dino-4scale_internimage-h_20k_objects365-to-coco_fsdp"}


@pytest.mark.parametrize("name", PATHS)
def test_settings_are_the_official_ones(name):
    cfg = Config.fromfile(PATHS[name])
    backbone, wrapper = cfg.model.backbone, cfg.optim_wrapper
    paramwise = wrapper.paramwise_cfg
    by_layer = wrapper.constructor == "mmdcn.LayerDecayOptimWrapperConstructor"
    if not by_layer:
        assert paramwise == {"custom_keys": {"backbone": {"lr_mult": 0.1}}}
    settings = (
        backbone.drop_path_rate,
        backbone.get("with_cp", False),
        wrapper.optimizer.lr,
        wrapper.optimizer.weight_decay,
        paramwise.get("layer_decay_rate"),
        paramwise.get("offset_lr_scale", 1),
        cfg.train_dataloader.batch_size,
        cfg.get("auto_scale_lr", {}).get("base_batch_size"),
    )
    assert settings == next(r[name] for r in RECIPES.values() if name in r)
    assert wrapper.optimizer.type == "AdamW"
    assert wrapper.optimizer.get("betas", (0.9, 0.999)) == (0.9, 0.999)
    clip = wrapper.get("clip_grad") or {}
    assert clip.get("max_norm") == (0.1 if "dino" in name else None)
    assert clip.get("norm_type", 2) == 2
    hooks = [(hook["type"], hook.get("update_buffers")) for hook in cfg.get("custom_hooks", [])]
    assert hooks == ([("EMAHook", True)] if name in EMA else [])


@pytest.mark.parametrize("name", PATHS)
def test_schedules_are_the_official_ones(name):
    cfg = Config.fromfile(PATHS[name])
    warmup, *steps = cfg.param_scheduler
    assert (warmup.type, warmup.start_factor, warmup.by_epoch) == ("LinearLR", 0.001, False)
    assert (warmup.begin, warmup.end) == (0, 500)
    if "20k" in name:
        assert (cfg.train_cfg.type, cfg.train_cfg.max_iters) == ("IterBasedTrainLoop", 20000)
        assert cfg.train_cfg.val_interval == 200 and steps == []
        return
    milestones = [27, 33] if "3x" in name else [11] if "dino" in name else [8, 11]
    (step,) = steps
    assert (step.type, step.milestones, step.gamma) == ("MultiStepLR", milestones, 0.1)
    assert cfg.train_cfg.max_epochs == step.end == (36 if "3x" in name else 12)


@pytest.mark.parametrize("name", PATHS)
def test_images_are_prepared_as_in_the_official_recipe(name):
    cfg = Config.fromfile(PATHS[name])
    normalise = cfg.model.data_preprocessor
    assert normalise.mean == [123.675, 116.28, 103.53] and normalise.std == [58.395, 57.12, 57.375]
    assert normalise.bgr_to_rgb and normalise.pad_size_divisor == 32
    (test_size,) = [t.scale for t in cfg.test_dataloader.dataset.pipeline if "scale" in t]
    assert test_size == ((2000, 1000) if "20k" in name else (1333, 800))
    assert cfg.train_dataloader.dataset.filter_cfg.filter_empty_gt
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert steps["RandomFlip"].prob == 0.5
    if "20k" in name:
        assert steps["RandomResize"].scale == [(2000, 600), (2000, 1800)]
        return
    if "rcnn" in name and "1x" in name:
        assert steps["Resize"].scale == (1333, 800) and steps["Resize"].keep_ratio
        return
    sizes = [(short, 1333) for short in (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)]
    whole, (first, crop, last) = steps["RandomChoice"].transforms
    long = 4200 if "dino" in name else 1333
    assert whole[0].scales == last.scales == sizes
    assert first.scales == [(400, long), (500, long), (600, long)]
    assert (crop.crop_type, crop.crop_size) == ("absolute_range", (384, 600))
    assert crop.allow_negative_crop == ("rcnn" in name)


@pytest.mark.parametrize("name", [n for n in PATHS if "dino" in n])
def test_dino_has_the_official_settings(name):
    model = Config.fromfile(PATHS[name]).model
    big = "20k" in name
    assert model.num_queries == 900 and model.as_two_stage and model.with_box_refine
    denoising = model.dn_cfg
    assert (denoising.label_noise_scale, denoising.box_noise_scale) == (0.5, 1.0)
    assert denoising.group_cfg.num_dn_queries == (1000 if big else 100)
    position = model.positional_encoding
    assert (position.num_feats, position.temperature, position.normalize) == (128, 20, True)
    losses = [model.bbox_head[key].loss_weight for key in ("loss_cls", "loss_bbox", "loss_iou")]
    assert losses == [1.0, 5.0, 2.0] and model.bbox_head.sync_cls_avg_factor
    costs = [cost.weight for cost in model.train_cfg.assigner.match_costs]
    assert costs == [2.0, 5.0, 2.0]
    for part in (model.encoder, model.decoder):
        assert part.num_layers == 6
        assert part.layer_cfg.ffn_cfg.feedforward_channels == 2048
        assert part.layer_cfg.ffn_cfg.ffn_drop == part.layer_cfg.self_attn_cfg.dropout == 0.0
    assert model.test_cfg.max_per_img == (100 if "_internimage-t" in name else 300)
    assert model.backbone.out_indices == (1, 2, 3)
    assert model.neck.num_outs == 4 and model.neck.norm_cfg == dict(type="GN", num_groups=32)
