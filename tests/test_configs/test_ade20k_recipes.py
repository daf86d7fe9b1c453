"""Settings of the ADE20K recipes against the published ones, written down once more by hand."""

from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

pytest.importorskip("mmseg")
ROOT = Path(__file__).parents[2]

UPERNET = "upernet_{}internimage-{}_160k_ade20k-{}x{}"
# name -> crop, drop path, checkpointing, learning rate, decay by layer, images per GPU, clip norm
RECIPES = {
    UPERNET.format("", "t", 512, 512): (512, 0.2, False, 6e-5, 1.0, 2, None),
    UPERNET.format("", "s", 512, 512): (512, 0.3, False, 6e-5, 1.0, 2, None),
    UPERNET.format("", "b", 512, 512): (512, 0.4, False, 6e-5, 1.0, 2, None),
    UPERNET.format("", "l", 640, 640): (640, 0.4, False, 2e-5, 0.94, 2, 0.1),
    UPERNET.format("", "xl", 640, 640): (640, 0.4, False, 2e-5, 0.94, 2, 0.1),
    UPERNET.format("", "h", 896, 896): (896, 0.5, False, 2e-5, 0.95, 1, 0.1),
    UPERNET.format("", "g", 896, 896): (896, 0.5, True, 2e-5, 0.95, 1, 0.1),
    UPERNET.format("flash-", "t", 512, 512): (512, 0.2, True, 6e-5, 1.0, 2, None),
    UPERNET.format("flash-", "s", 512, 512): (512, 0.3, True, 6e-5, 1.0, 2, None),
    UPERNET.format("flash-", "b", 512, 512): (512, 0.3, False, 6e-5, 1.0, 2, None),
    UPERNET.format("flash-", "l", 640, 640): (640, 0.4, False, 2e-5, 0.94, 2, 0.1),
    "mask2former_internimage-h_80k_cocostuff-to-ade20k-896x896": (
        896, 0.5, False, 1e-5, 0.95, 1, 0.1),
    "mask2former_flash-internimage-t_160k_ade20k-512x512": (512, 0.2, False, 1e-4, 0.9, 2, 0.01),
    "mask2former_flash-internimage-s_160k_ade20k-640x640": (640, 0.3, False, 1e-4, 1.0, 2, 0.1),
    "mask2former_flash-internimage-s_nsmx_160k_ade20k-640x640": (
        640, 0.3, False, 1e-4, 1.0, 2, 0.1),
    "mask2former_flash-internimage-b_160k_ade20k-640x640": (640, 0.4, False, 1e-4, 1.0, 2, 0.1),
    "mask2former_flash-internimage-l_160k_ade20k-640x640": (640, 0.5, True, 1e-4, 0.94, 2, 0.1),
}  # fmt: skip
# Mask2Former: queries, width, heads, widths of the FFNs in encoder and decoder, evaluation interval
MASK2FORMERS = {
    "mask2former_internimage-h_80k_cocostuff-to-ade20k-896x896": (200, 1024, 32, 4096, 4096, 2000),
    "mask2former_flash-internimage-t_160k_ade20k-512x512": (100, 256, 8, 1024, 2048, 5000),
    "mask2former_flash-internimage-s_160k_ade20k-640x640": (200, 256, 8, 2048, 2048, 5000),
    "mask2former_flash-internimage-s_nsmx_160k_ade20k-640x640": (200, 256, 8, 2048, 2048, 5000),
    "mask2former_flash-internimage-b_160k_ade20k-640x640": (200, 256, 8, 2048, 2048, 5000),
    "mask2former_flash-internimage-l_160k_ade20k-640x640": (200, 256, 8, 2048, 2048, 2000),
}
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
OTHER_SCALES = {
    UPERNET.format("", "l", 640, 640): (0.75, 1.0, 1.25),
    UPERNET.format("flash-", "l", 640, 640): (0.75, 1.0, 1.25),
    "mask2former_internimage-h_80k_cocostuff-to-ade20k-896x896": (
        768 / 896, 832 / 896, 1.0, 960 / 896, 1024 / 896),
}  # fmt: skip


@cache  # the tests only read
def load(name):
    folder = "flash_internimage" if "flash" in name else "internimage"
    if "mask2former" in name:
        pytest.importorskip("mmdet")
    return Config.fromfile(ROOT / "configs" / folder / f"{name}.py")


def step(pipeline, kind):
    (found,) = [step for step in pipeline if step["type"] == kind]
    return found


@pytest.mark.parametrize("name", RECIPES)
class TestRecipe:
    def test_training(self, name):
        crop, drop_path, checkpointing, rate, decay, images, clip = RECIPES[name]
        cfg = load(name)
        assert cfg.model.data_preprocessor.size == (crop, crop)
        assert cfg.model.data_preprocessor.seg_pad_val == 255
        assert cfg.model.backbone.drop_path_rate == drop_path
        assert cfg.model.backbone.get("with_cp", False) == checkpointing
        assert cfg.train_dataloader.batch_size == images
        steps = cfg.train_dataloader.dataset.pipeline
        resize = step(steps, "RandomResize")
        assert (resize.scale, resize.ratio_range) == ((4 * crop, crop), (0.5, 2.0))
        cut = step(steps, "RandomCrop")
        assert (cut.crop_size, cut.cat_max_ratio) == ((crop, crop), 0.75)
        assert step(steps, "RandomFlip").prob == 0.5 and step(steps, "PhotoMetricDistortion")

        optimizer = cfg.optim_wrapper.optimizer
        assert (optimizer.type, optimizer.lr) == ("AdamW", rate)
        assert (optimizer.betas, optimizer.weight_decay) == ((0.9, 0.999), 0.05)
        assert cfg.optim_wrapper.paramwise_cfg == dict(layer_decay_rate=decay)
        clipping = cfg.optim_wrapper.get("clip_grad")
        assert clipping == (None if clip is None else dict(max_norm=clip))
        length = 80000 if "_80k_" in name else 160000
        assert cfg.train_cfg.max_iters == length
        optimizer = torch.optim.SGD([torch.zeros(1)], rate)
        schedulers = [
            PARAM_SCHEDULERS.build(dict(s, optimizer=optimizer)) for s in cfg.param_scheduler
        ]
        for iteration in range(2000):
            # MMCV 1.x: the warm-up scales a rate that falls from the first iteration on.
            warm_up = min(1, 1e-6 + (1 - 1e-6) * iteration / 1500)
            expected = rate * (1 - iteration / length) * warm_up
            # MMEngine's warm-up is one iteration shorter.
            assert abs(optimizer.param_groups[0]["lr"] - expected) < rate / 1499
            optimizer.step()
            for scheduler in schedulers:
                scheduler.step()

    def test_testing(self, name):
        crop, cfg = RECIPES[name][0], load(name)
        assert cfg.model.test_cfg.mode == "whole"
        for loader in (cfg.val_dataloader, cfg.test_dataloader):
            resize = step(loader.dataset.pipeline, "Resize")
            assert (resize.scale, resize.keep_ratio) == ((4 * crop, crop), True)
            multiples = [s for s in loader.dataset.pipeline if s["type"] == "ResizeToMultiple"]
            # one recipe leaves it out
            assert len(multiples) == (name != UPERNET.format("flash-", "t", 512, 512))
        scales, _, flips, *_ = step(cfg.tta_pipeline, "TestTimeAug").transforms
        expected = [round(crop * ratio) for ratio in OTHER_SCALES.get(name, SCALES)]
        assert [scale["scale"] for scale in scales] == [(4 * short, short) for short in expected]
        assert [flip["prob"] for flip in flips] == [0.0, 1.0]

    def test_heads(self, name):
        model = load(name).model
        widths = model.decode_head.in_channels
        assert widths == [widths[0] * 2**i for i in range(4)]
        assert model.decode_head.num_classes == 150
        if "upernet" in name:
            head, auxiliary = model.decode_head, model.auxiliary_head
            assert (head.type, head.channels, head.pool_scales) == ("UPerHead", 512, (1, 2, 3, 6))
            assert (head.dropout_ratio, head.align_corners) == (0.1, False)
            assert (auxiliary.type, auxiliary.in_index, auxiliary.channels) == ("FCNHead", 2, 256)
            assert (auxiliary.num_convs, auxiliary.concat_input) == (1, False)
            assert auxiliary.in_channels == widths[2] and auxiliary.num_classes == 150
            assert auxiliary.dropout_ratio == 0.1 and auxiliary.loss_decode.loss_weight == 0.4
            assert head.loss_decode.loss_weight == 1.0


@pytest.mark.parametrize("name", MASK2FORMERS)
def test_mask2former(name):
    queries, width, heads, encoder_ffn, decoder_ffn, interval = MASK2FORMERS[name]
    cfg = load(name)
    head = cfg.model.decode_head
    assert cfg.train_cfg.val_interval == interval
    assert (head.num_queries, head.feat_channels, head.out_channels) == (queries, width, width)
    assert head.positional_encoding.num_feats == width // 2
    encoder, decoder = head.pixel_decoder.encoder, head.transformer_decoder
    assert (encoder.num_layers, decoder.num_layers) == (6, 9)
    attention = encoder.layer_cfg.self_attn_cfg
    assert (attention.num_levels, attention.num_points, attention.num_heads) == (3, 4, heads)
    for part in ("self_attn_cfg", "cross_attn_cfg"):
        assert decoder.layer_cfg[part] == dict(embed_dims=width, num_heads=heads)
    assert encoder.layer_cfg.ffn_cfg.feedforward_channels == encoder_ffn
    assert decoder.layer_cfg.ffn_cfg.feedforward_channels == decoder_ffn
    weights = [head[f"loss_{part}"].loss_weight for part in ("cls", "mask", "dice")]
    assert weights == [2.0, 5.0, 5.0]
    assert head.loss_cls.class_weight == [1.0] * 150 + [0.1]
    sampling = head.train_cfg
    assert (sampling.num_points, sampling.oversample_ratio) == (12544, 3.0)
    assert sampling.importance_sample_ratio == 0.75
    assert [cost.weight for cost in sampling.assigner.match_costs] == [2.0, 5.0, 5.0]
