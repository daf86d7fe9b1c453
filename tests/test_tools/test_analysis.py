"""Counting operations and measuring latency."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmdcn.analysis.flops import count_flops
from mmdcn.engine.launch import UsageError

pytest.importorskip("mmdet")


@pytest.fixture
def run(load_tool, monkeypatch, capsys):
    """Runs a tool of tools/analysis_tools in this process; returns what it printed."""

    def run(name, *args):
        monkeypatch.setattr("sys.argv", [f"{name}.py", *map(str, args)])
        load_tool(f"analysis_tools/{name}").main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def tiny(root):
    return root / "tests" / "test_tools" / "configs" / "tiny_mask_rcnn.py"


def build(path):
    cfg = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope("mmdet"), torch.device("meta"):
        return MODELS.build(cfg.model)


def test_plain_mask_rcnn_costs_what_papers_say(tmp_path):
    # 260G in the tables of Swin Transformer and others
    path = tmp_path / "plain.py"
    path.write_text('_base_ = "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"\n')
    counts = count_flops(build(path), 800, 1280)
    assert set(counts) == {"backbone", "neck", "rpn_head", "bbox_head", "mask_head"}
    assert sum(counts.values()) / 2e9 == pytest.approx(260, rel=0.01)


def test_backbone_is_the_sum_of_its_layers():
    with torch.device("meta"):
        backbone = MODELS.build(
            dict(type="mmdcn.InternImage", channels=16, depths=(1, 0, 0, 0), groups=(2, 2, 2, 2))
        )
    backbone.levels[0].downsample = None
    backbone.levels = backbone.levels[:1]

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = backbone

        def forward(self, image, samples, mode):
            return self.backbone(image)

    counts = count_flops(Model(), 64, 96)
    pixels, c = 16 * 24, 16
    stem = 4 * pixels * 9 * 3 * 8 + pixels * 9 * 8 * c
    layer = pixels * (9 * c + c * 2 * 27 + 2 * c * c + 5 * 9 * c + 2 * c * 4 * c)
    assert counts == {"backbone": 2 * (stem + layer)}


@pytest.mark.parametrize("name", ["c5-dilated", "mdconv-c3-c5_mdpsroi"])
def test_r_fcn_pools_regions_from_maps_computed_once(root, name):
    model = build(root / "configs" / "r_fcn" / f"r-fcn_r101-{name}_ohem_1x_coco.py")
    counts = count_flops(model, 320, 480)
    assert set(counts) == {"backbone", "rpn_head", "bbox_head"}
    pixels, boxes, bins = 20 * 30, 1000, 7 * 7
    assert counts["rpn_head"] == 2 * pixels * 512 * (9 * 1024 + 12 * (1 + 4))  # 12 anchors
    classes, coordinates = 81, 4
    outputs = bins * (classes + coordinates)
    convolutions = pixels * 1024 * (2048 + outputs)
    if name == "c5-dilated":
        pooling = boxes * outputs // 2  # a sum, not multiply-adds
    else:
        # x, y and a mask for each bin of each class, and for those of the box
        parts = 3 * bins * (classes + 1)
        convolutions += pixels * 1024 * parts
        pooling = boxes * (outputs + parts) * 4**2 * 4  # samples of four neighbours
    assert counts["bbox_head"] == 2 * (convolutions + pooling)


def test_count_tool(run, tiny):
    model = build(tiny)
    expected = count_flops(model, 96, 128)
    printed = run("get_flops", tiny, "--shape", 96, 128)
    rows = {
        name: (float(size), float(cost))
        for name, size, cost in re.findall(r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \|$", printed, re.M)
    }
    assert list(rows) == [*expected, "total"]
    parameters = sum(p.numel() for p in model.parameters())
    assert rows["total"][0] == pytest.approx(parameters / 1e6, abs=0.006)
    assert sum(size for size, _ in list(rows.values())[:-1]) == pytest.approx(
        rows["total"][0], abs=0.03
    )
    assert rows["total"][1] == pytest.approx(sum(expected.values()) / 2e9, abs=0.006)


def test_count_tool_says_when_it_has_to_compute(run, root, tmp_path):
    path = tmp_path / "dino.py"
    base = root / "configs" / "internimage" / "dino-4scale_internimage-t_1x_coco.py"
    narrow = dict(
        backbone=dict(channels=16, depths=(1, 1, 1, 1), groups=(1, 2, 4, 8)),
        neck=dict(in_channels=[32, 64, 128]),
        num_queries=20,
        encoder=dict(num_layers=1),
        decoder=dict(num_layers=1),
    )
    path.write_text(f"_base_ = {str(base)!r}\nmodel = {narrow!r}\n")
    with pytest.raises(UsageError, match="cannot be counted without computing .*--device cpu"):
        run("get_flops", path, "--shape", 64, 96)
    printed = run("get_flops", path, "--shape", 64, 96, "--device", "cpu")
    parts = re.findall(r"^\| (\w+) \|", printed, re.M)
    assert {"backbone", "neck", "encoder", "decoder", "total"} <= set(parts)


@pytest.mark.parametrize("options", [[], ["--backbone-only", "--amp", "bfloat16"]])
def test_latency_tool(run, tiny, options):
    printed = run(
        "benchmark", tiny, "--shape", 64, 96, "--batch-size", 2, "--warmup", 1, "--repeat", 3,
        "--device", "cpu", *options,
    )  # fmt: skip
    match = re.search(
        r"^(\w+), 2 x 64x96, (\w+), cpu, \d+ threads: median ([\d.]+) ms \(fastest ([\d.]+), "
        r"slowest ([\d.]+), 3 passes\), ([\d.]+) images/s$",
        printed,
        re.M,
    )
    assert match[1] == ("backbone" if options else "model")
    assert match[2] == ("bfloat16" if options else "float32")
    median, fastest, slowest, rate = map(float, match.groups()[2:])
    assert 0 < fastest <= median <= slowest
    assert rate == pytest.approx(2000 / median, rel=0.01)


@pytest.mark.parametrize(
    "tool, args, match",
    [
        ("get_flops", ["nowhere.py"], "config nowhere.py: there is no such file"),
        ("get_flops", ["{tiny}", "--shape", "0", "9"], r"--shape: .*got \[0, 9\]"),
        ("benchmark", ["{tiny}", "--checkpoint", "no.pth"], "checkpoint no.pth: there is no such"),
        ("benchmark", ["{tiny}", "--repeat", "0"], "--repeat: expected positive numbers"),
    ],
)
def test_mistakes(run, tiny, tool, args, match):
    with pytest.raises(UsageError, match=match):
        run(tool, *[arg.format(tiny=tiny) for arg in args])
