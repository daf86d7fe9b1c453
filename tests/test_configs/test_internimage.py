"""The COCO recipes of InternImage and FlashInternImage: sizes, costs, one training step each."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

from mmdcn.analysis.flops import count_flops

pytest.importorskip("mmdet")

ROOT = Path(__file__).parents[2]
FOLDERS = ("internimage", "flash_internimage")
META = {
    model["Name"]: model["Metadata"]
    for folder in FOLDERS
    for model in yaml.safe_load((ROOT / "configs" / folder / "metafile.yml").read_text())["Models"]
}
PATHS = {name: path for f in FOLDERS for path in sorted((ROOT / "configs" / f).glob("*.py"))
         for name in [path.stem] if "ade20k" not in name and "_in1k" not in name}  # fmt: skip
# Millions of parameters that the papers give.
PUBLISHED_SIZES = {
    "mask-rcnn_internimage-t_fpn_1x_coco": 49,
    "mask-rcnn_internimage-s_fpn_1x_coco": 69,
    "mask-rcnn_internimage-b_fpn_1x_coco": 115,
    "cascade-mask-rcnn_internimage-l_fpn_1x_coco": 277,
    "cascade-mask-rcnn_internimage-xl_fpn_1x_coco": 387,
    "dino-4scale_internimage-t_1x_coco": 49,
    "dino-4scale_internimage-l_1x_coco": 241,
    "dino-4scale_internimage-h_20k_objects365-to-coco": 1100,
    "dino-4scale_internimage-g_20k_objects365-to-coco": 3100,
    "dino-4scale_cb-internimage-h_20k_objects365-to-coco": 2200,
}
# Billions of multiply-adds at 1280x800 that the papers give.
PUBLISHED_COSTS = {
    "mask-rcnn_internimage-t_fpn_1x_coco": 270,
    "mask-rcnn_internimage-s_fpn_1x_coco": 340,
    "mask-rcnn_internimage-b_fpn_1x_coco": 501,
    "cascade-mask-rcnn_internimage-l_fpn_1x_coco": 1399,
    "cascade-mask-rcnn_internimage-xl_fpn_1x_coco": 1782,
}


def build(cfg, device="cpu"):
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device(device):
        return MODELS.build(deepcopy(cfg.model))  # some models change their configs


@pytest.mark.parametrize("name", PATHS)
def test_size_is_that_of_the_metafile(name):
    model = build(Config.fromfile(PATHS[name]), "meta")
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == META[name]["Parameters"]
    if name in PUBLISHED_SIZES:
        digits = 6 if parameters < 1e9 else 8
        assert round(parameters, -digits) == PUBLISHED_SIZES[name] * 10**6
    published = PUBLISHED_COSTS.get(name.replace("_3x_", "_1x_"))
    assert META[name].get("FLOPs") == (published and f"{published}G")
    if name in PUBLISHED_COSTS:  # 3x has the same models
        multiply_adds = sum(count_flops(model, 800, 1280).values()) / 2e9
        assert multiply_adds == pytest.approx(published, rel=0.02)


def narrow(cfg):
    """The same structure with few channels, blocks and queries, and without downloads."""
    model = cfg.model
    model.backbone.update(
        channels=16, depths=(1, 1, 2, 1), groups=(1, 2, 4, 8), init_cfg=None, drop_path_rate=0.0
    )
    if model.backbone.arch in ("huge", "giant"):
        model.backbone.level2_post_norm_block_ids = (0, 1)
    model.neck.in_channels = [16, 32, 64, 128][-len(model.neck.in_channels) :]
    if "roi_head" in model:
        heads = model.roi_head.bbox_head
        for head in heads if isinstance(heads, list) else [heads]:
            head.update(fc_out_channels=32, conv_out_channels=32)
        model.roi_head.mask_head.conv_out_channels = 32
        model.train_cfg.rpn_proposal.max_per_img = model.test_cfg.rpn.max_per_img = 20
    else:
        model.num_queries = model.dn_cfg.group_cfg.num_dn_queries = 20
        model.test_cfg.max_per_img = 20
        model.encoder.num_layers, model.decoder.num_layers = 1, 2
    return cfg


def step(model, optim_wrapper, batch):
    """One step with the same random choices every time: losses, optimizer, clipped gradient."""
    torch.manual_seed(1)
    np.random.seed(1)
    logged = model.train().train_step(batch, optim_wrapper)
    assert logged["loss"].isfinite() and logged["loss"] > 0
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", PATHS)
def test_trains_resumes_and_predicts(name):
    from mmdet.testing import demo_mm_inputs

    torch.manual_seed(0)
    cfg = narrow(Config.fromfile(PATHS[name]))
    model = build(cfg)
    model.init_weights()
    with_mask = "mask" in name
    batch = demo_mm_inputs(1, image_shapes=[(3, 64, 96)], num_items=[2], with_mask=with_mask)
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    step(model, optim_wrapper, batch)
    changed = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
    first = ["patch_embed.conv1.weight", "levels.3.blocks.0.mlp.fc1.weight"]
    if "cb-" in name:
        first = [f"cb_modules.0.{key}" for key in first]
        first += ["cb_modules.1.levels.3.blocks.0.mlp.fc1.weight", "cb_modules.1.gamma0"]
    assert changed.issuperset(f"backbone.{key}" for key in first)
    assert any(key.startswith("neck.") for key in changed)

    # the next step, in bfloat16 as with --amp, here and in a new model that goes on from here
    resumed = build(cfg)
    resumed.load_state_dict(model.state_dict())
    saved = deepcopy(optim_wrapper.state_dict())
    for each in (model, resumed):
        amp = build_optim_wrapper(each, dict(cfg.optim_wrapper, type="mmdcn.BFloat16OptimWrapper"))
        amp.load_state_dict(deepcopy(saved))
        step(each, amp, batch)
    after = dict(resumed.named_parameters())
    assert all(torch.equal(p, after[key]) for key, p in model.named_parameters())

    with torch.no_grad():
        (sample,) = resumed.eval().val_step(batch)
    predicted = sample.pred_instances
    assert len(predicted.bboxes) == len(predicted.scores) == len(predicted.labels)
    assert ("masks" in predicted) == with_mask
