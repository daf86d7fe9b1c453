"""The ADE20K recipes: sizes, costs, one training step and predictions of each."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, METRICS, MODELS, TRANSFORMS, DefaultScope
from mmengine.structures import PixelData

from mmdcn.analysis.flops import count_flops

pytest.importorskip("mmseg")

ROOT = Path(__file__).parents[2]
PATHS = {path.stem: path for path in sorted((ROOT / "configs").glob("*/*ade20k*.py"))}
PATHS |= {path.stem: path for path in sorted((ROOT / "configs" / "demo").glob("upernet_*.py"))}
META = {
    model["Name"]: model["Metadata"]
    for family in ("dcn", "internimage", "flash_internimage")
    for model in yaml.safe_load((ROOT / "configs" / family / "metafile.yml").read_text())["Models"]
    if "ade20k" in model["Name"]
}
# Totals of the official models.
OFFICIAL_SIZES = {
    "upernet_internimage-t_160k_ade20k-512x512": 59_077_148,
    "upernet_internimage-s_160k_ade20k-512x512": 79_866_956,
    "upernet_internimage-b_160k_ade20k-512x512": 128_387_852,
    "upernet_internimage-l_160k_ade20k-640x640": 255_600_606,
    "upernet_internimage-xl_160k_ade20k-640x640": 367_733_000,
    "upernet_internimage-h_160k_ade20k-896x896": 1_120_338_396,
    "upernet_internimage-g_160k_ade20k-896x896": 3_112_678_316,
    "mask2former_internimage-h_80k_cocostuff-to-ade20k-896x896": 1_313_496_135,
    "upernet_flash-internimage-t_160k_ade20k-512x512": 58_974_252,
    "upernet_flash-internimage-s_160k_ade20k-512x512": 79_854_572,
    "upernet_flash-internimage-b_160k_ade20k-512x512": 128_374_980,
    "upernet_flash-internimage-l_160k_ade20k-640x640": 255_562_876,
    "mask2former_flash-internimage-t_160k_ade20k-512x512": 48_462_679,
    "mask2former_flash-internimage-s_160k_ade20k-640x640": 71_550_743,
    "mask2former_flash-internimage-s_nsmx_160k_ade20k-640x640": 71_550_743,
    "mask2former_flash-internimage-b_160k_ade20k-640x640": 118_080_495,
    "mask2former_flash-internimage-l_160k_ade20k-640x640": 242_282_407,
}
# Billions of multiply-adds that the papers give, and the size of the image.
OFFICIAL_COSTS = {
    "upernet_internimage-t_160k_ade20k-512x512": (944, (512, 2048)),
    "upernet_internimage-s_160k_ade20k-512x512": (1017, (512, 2048)),
    "upernet_internimage-b_160k_ade20k-512x512": (1185, (512, 2048)),
    "upernet_internimage-l_160k_ade20k-640x640": (2526, (640, 2560)),
    "upernet_internimage-xl_160k_ade20k-640x640": (3142, (640, 2560)),
    "upernet_internimage-h_160k_ade20k-896x896": (3566, (896, 896)),
}


def load(name):
    if "mask2former" in name:
        pytest.importorskip("mmdet")
    return Config.fromfile(PATHS[name])


def build(cfg, device="cpu"):
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device(device):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize("name", META)
def test_size_and_cost_are_those_of_the_official_model(name):
    model = build(load(name), "meta")
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == META[name]["Parameters"]
    assert parameters == OFFICIAL_SIZES.get(name, parameters)
    if name in OFFICIAL_COSTS:
        published, size = OFFICIAL_COSTS[name]
        assert META[name]["FLOPs"] == f"{published}G"
        multiply_adds = sum(count_flops(model, *size).values()) / 2e9
        assert multiply_adds == pytest.approx(published, rel=0.002)


def test_every_official_size_is_tested():
    assert OFFICIAL_SIZES.keys() == {name for name in META if "internimage" in name}


def test_mask2former_costs_what_the_paper_says():
    model = build(load("mask2former_internimage-h_80k_cocostuff-to-ade20k-896x896"), "meta")
    model.to_empty(device="cpu")  # deformable attention looks at values
    # All costs are linear in the number of pixels, up to those of the queries among themselves.
    small, large = (sum(count_flops(model, size, size).values()) / 2 for size in (64, 128))
    by_pixel = (large - small) / (128**2 - 64**2)
    counted = large + by_pixel * (896**2 - 128**2)

    # The official counter sees modules, hence not what is written as functions:
    queries, width, layers, levels = 200, 1024, 9, (28**2, 56**2, 112**2)
    keys = layers / 3 * sum(levels)
    projections = 6 * layers * queries * width**2 + 2 * keys * width**2
    attention = 2 * keys * queries * width + 2 * layers * queries**2 * width
    masks = (layers + 1) * queries * width * 224**2 + queries * 150 * 224**2
    published = counted - projections - attention - masks
    assert published / 1e9 == pytest.approx(4635, rel=0.002)
    assert counted / 1e9 == pytest.approx(4878, rel=0.001)


def narrow(cfg):
    """The same structure with few channels, blocks and queries, and without downloads."""
    model = cfg.model
    if "InternImage" in model.backbone.type:
        model.backbone.update(
            channels=16, depths=(1, 1, 2, 1), groups=(1, 2, 4, 8), drop_path_rate=0.0, init_cfg=None
        )
        if model.backbone.get("arch") in ("huge", "giant"):
            model.backbone.level2_post_norm_block_ids = (0, 1)
        widths = [16, 32, 64, 128]
    else:
        model.backbone.update(base_channels=16, stem_channels=16)
        model.pretrained = None
        widths = [64, 128, 256, 512]
    if model.decode_head.type == "mmdcn.Mask2FormerHead":
        narrow_mask2former(model.decode_head, widths)
    else:
        head = model.decode_head
        head.update(channels=16, in_channels=widths if head.type == "UPerHead" else widths[-1])
        model.auxiliary_head.update(channels=16, in_channels=widths[2])
    model.data_preprocessor.size = (64, 96)
    return cfg


def narrow_mask2former(head, widths):
    attention = dict(embed_dims=32, num_heads=4)
    ffn = dict(embed_dims=32, feedforward_channels=48)
    position = dict(num_feats=16, normalize=True)
    head.update(in_channels=widths, feat_channels=32, out_channels=32, num_queries=20)
    head.positional_encoding = head.pixel_decoder.positional_encoding = position
    encoder, decoder = head.pixel_decoder.encoder, head.transformer_decoder
    encoder.num_layers, decoder.num_layers = 1, 3
    encoder.layer_cfg.self_attn_cfg.update(attention)
    for layer in (decoder.layer_cfg.self_attn_cfg, decoder.layer_cfg.cross_attn_cfg):
        layer.update(attention)
    for layer in (encoder.layer_cfg, decoder.layer_cfg):
        layer.ffn_cfg.update(ffn)
    head.train_cfg.num_points = 64


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """An image of 72 x 50 pixels and its label map, as ADE20K's files and a dataset's record."""
    import cv2

    folder = tmp_path_factory.mktemp("ade")
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (8, 12, 3), dtype=np.uint8), (72, 50))
    labels = np.repeat(np.arange(72, dtype=np.uint8)[None] // 15, 50, axis=0)  # 0: ignored
    cv2.imwrite(str(folder / "a.jpg"), image)
    cv2.imwrite(str(folder / "a.png"), labels)
    return dict(
        img_path=str(folder / "a.jpg"),
        seg_map_path=str(folder / "a.png"),
        label_map=None,
        reduce_zero_label=True,
        seg_fields=[],
    )


def run_pipeline(steps, sample, scope="mmseg"):
    """What a data loader yields for a batch with this sample alone."""
    from mmengine.dataset import Compose, pseudo_collate

    with DefaultScope.overwrite_default_scope(scope):
        TRANSFORMS.get("PackSegInputs")
        return pseudo_collate([Compose(steps)(dict(sample, seg_fields=[]))])


def test_miou_of_a_label_map_by_hand(tmp_path):
    import cv2

    names = dict(img_path="images/validation", seg_map_path="annotations/validation")
    labels = np.array([[0, 1, 1, 2], [2, 2, 150, 150]], np.uint8)
    predicted = torch.tensor([[0, 0, 1, 1], [1, 0, 149, 149]])
    for folder, suffix, content in (
        (names["img_path"], "jpg", np.zeros((2, 4, 3), np.uint8)),
        (names["seg_map_path"], "png", labels),
    ):
        (tmp_path / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / folder / f"ADE_val_00000001.{suffix}"), content)
    cfg = load("upernet_internimage-t_160k_ade20k-512x512")
    cfg.test_dataloader.dataset.data_root = str(tmp_path)
    with DefaultScope.overwrite_default_scope("mmseg"):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        metric = METRICS.build(cfg.test_evaluator)
    (sample,) = [item["data_samples"] for item in dataset]
    assert sample.gt_sem_seg.data.tolist() == [[[255, 0, 0, 1], [1, 1, 149, 149]]]
    metric.dataset_meta = dataset.metainfo
    sample.set_data(dict(pred_sem_seg=PixelData(data=predicted[None])))
    metric.process({}, [sample.to_dict()])
    # Of the pixels that count: the first class has 1 right of 3 that are it in label or prediction,
    # the second 2 of 4, the last 2 of 2; the other 147 occur nowhere.
    expected = (1 / 3 + 2 / 4 + 2 / 2) / 3
    assert metric.evaluate(1)["mIoU"] == pytest.approx(100 * expected, abs=0.005)


@pytest.mark.parametrize("model", ["fcn_r50-d8", "deeplabv3_r50-d8", "upernet_r50"])
def test_readme_tells_the_settings_for_80k_iterations(model, tmp_path):
    """With them a recipe is MMSegmentation's own of that length with a deformable backbone."""
    readme = (ROOT / "configs" / "dcn" / "README.md").read_text()
    (options,) = re.findall(r"--cfg-options \\\n(.*?)\n```", readme, re.DOTALL)
    pairs = [option.split("=") for option in options.replace("\\\n", " ").split()]
    ours = load(f"{model}-mdconv-c3-c5_160k_ade20k-512x512")
    ours.merge_from_dict({key: int(value) for key, value in pairs})
    ours = ours.to_dict()
    del ours["custom_imports"]
    del ours["model"]["backbone"]["dcn"], ours["model"]["backbone"]["stage_with_dcn"]

    name = f"{model.split('_')[0]}/{model}_4xb4-80k_ade20k-512x512.py"
    base = ROOT / "configs" / "_base_" / "mmseg.py"
    (tmp_path / "theirs.py").write_text(f"_base_ = ['{base}', 'mmseg::{name}']")
    assert ours == Config.fromfile(tmp_path / "theirs.py").to_dict()


@pytest.mark.parametrize("name", PATHS)
def test_trains_and_predicts(name, sample):
    torch.manual_seed(0)
    np.random.seed(0)
    cfg = narrow(load(name))
    model = revert_sync_batchnorm(build(cfg))
    model.init_weights()
    # the crop of the training pipeline is at least as large as the narrowed batch
    steps = [dict(step) for step in cfg.train_pipeline]
    for step in steps:
        if "scale" in step:
            step["scale"] = (96, 64)
        if "crop_size" in step:
            step["crop_size"] = (64, 96)
    batch = run_pipeline(steps, sample)
    labels = batch["data_samples"][0].gt_sem_seg.data.unique().tolist()
    assert set(labels) <= {*range(4), 255}
    (padded,) = model.data_preprocessor(batch, training=True)["data_samples"]
    assert padded.gt_sem_seg.shape == (64, 96)

    batch = {key: value * 2 for key, value in batch.items()}  # batch normalisation needs two
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    logged = model.train().train_step(batch, optim_wrapper)
    assert logged["loss"].isfinite() and logged["loss"] > 0
    changed = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
    assert all(p.isfinite().all() for p in model.parameters())
    assert any(key.startswith("backbone.") for key in changed)
    assert any(key.startswith("decode_head.") for key in changed)

    resize = [dict(step) for step in cfg.test_dataloader.dataset.pipeline]
    for step in resize:
        if "scale" in step:
            step["scale"] = (256, 64)
    with torch.no_grad():
        (single,) = model.eval().test_step(run_pipeline(resize, sample))
        several = predict_with_tta(cfg, model, sample)
    classes = cfg.model.decode_head.num_classes
    for predicted in (single, several):
        assert predicted.pred_sem_seg.shape == (50, 72) == predicted.gt_sem_seg.shape
        assert 0 <= predicted.pred_sem_seg.data.min() <= predicted.pred_sem_seg.data.max() < classes
    assert single.seg_logits.data.isfinite().all()


def predict_with_tta(cfg, model, sample):
    """A prediction with the views of the recipe's pipeline, made smaller."""
    with DefaultScope.overwrite_default_scope("mmseg"):
        augmented = MODELS.build(dict(cfg.tta_model, module=model)).eval()
    load_image, augmentation = cfg.tta_pipeline
    scales, *others = augmentation.transforms
    assert len(scales) >= 3
    small = [dict(type="Resize", scale=(36 + 24 * i, 25 + 16 * i)) for i in range(len(scales))]
    pipeline = [load_image, dict(augmentation, transforms=[small, *others])]
    batch = run_pipeline(pipeline, sample)
    assert len(batch["inputs"]) == 2 * len(scales)  # each scale and its mirror image
    (predicted,) = augmented.test_step(batch)
    return predicted
