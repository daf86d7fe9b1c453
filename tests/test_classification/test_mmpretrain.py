"""InternImage's classifiers in MMPretrain: configs, pipelines, tools, converted checkpoints."""

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import MODELS, DefaultScope

pytest.importorskip("mmpretrain", reason="make test-classification has MMPretrain")
from mmdcn.engine.errors import UsageError

ROOT = Path(__file__).parents[2]
CONFIGS = Path(__file__).parent / "configs"
RECIPES = sorted(ROOT.glob("configs/*internimage/*_in1k*.py"))
PARAMETERS = {
    "internimage-t": 29_918_424,
    "internimage-s": 50_079_880,
    "internimage-b": 97_461_832,
    "internimage-l": 223_334_810,
    "internimage-xl": 334_819_780,
    "internimage-h": 1_089_636_760,
    "internimage-g": 3_076_373_352,
    "flash-internimage-t": 29_815_528,
    "flash-internimage-s": 50_067_496,
    "flash-internimage-b": 97_448_960,
    "flash-internimage-l": 223_297_080,
}


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        yield


def build(cfg, device="cpu"):
    with torch.device(device):
        return MODELS.build(cfg.model)


def test_every_size_has_a_recipe():
    assert {path.stem.split("_")[0] for path in RECIPES} == set(PARAMETERS)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe(path):
    cfg = Config.fromfile(path)
    model = build(cfg, "meta")
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[path.stem.split("_")[0]]
    large = path.stem.endswith("px")
    size = int(re.search(r"(\d+)px", path.stem)[1]) if large else 224
    gpus, batch = map(int, re.search(r"_(\d+)xb(\d+)_", path.stem).groups())
    assert (gpus * batch, cfg.train_dataloader.batch_size) == (512 if large else 4096, batch)
    assert cfg.auto_scale_lr.base_batch_size == gpus * batch
    assert cfg.optim_wrapper.optimizer.lr == (2e-5 if large else 4e-3)
    assert cfg.train_cfg.max_epochs == (20 if large else 300)
    assert cfg.model.head.loss.label_smooth_val == (0.3 if large else 0.1)
    assert ("train_cfg" in cfg.model) != large  # mixup and CutMix
    image = np.random.default_rng(0).integers(0, 256, (300, 420, 3), dtype=np.uint8)
    for loader, steps in (("train_dataloader", 4), ("val_dataloader", 3)):
        pipeline = Compose(cfg[loader].dataset.pipeline[1:])
        assert len(pipeline.transforms) >= steps
        out = pipeline(dict(img=image, img_shape=image.shape[:2], gt_label=3))
        assert out["inputs"].shape == (3, size, size)
    assert (cfg.train_pipeline[-2].type == "RandomErasing") != large


def run(tool, *args, folder, fails=False):
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / f"{tool}.py", *map(str, args)],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", ["tiny_internimage", "tiny_deformable_resnet"])
def test_tools_train_resume_test_and_count(workspace, name):
    config = CONFIGS / f"{name}.py"
    first = run("train", config, "--cfg-options", "train_cfg.max_epochs=1", folder=workspace)
    assert "accuracy/top1" in first
    log = run("train", config, "--resume", folder=workspace)
    assert "resumed epoch: 1" in log
    work = workspace / "work_dirs" / name
    records = [
        json.loads(line)
        for file in sorted(work.glob("*/vis_data/scalars.json"))
        for line in file.read_text().splitlines()
    ]
    assert [r["step"] for r in records if "accuracy/top1" in r] == [1, 2]
    log = run("test", config, work / "epoch_2.pth", "--out", "out.pkl", folder=workspace)
    top1 = float(re.search(r"accuracy/top1: ([\d.]+)", log)[1])
    found = pickle.loads((workspace / "out.pkl").read_bytes())
    right = [int(item["pred_score"].argmax()) == int(item["gt_label"]) for item in found]
    assert len(right) == 14 and top1 == pytest.approx(100 * np.mean(right), abs=1e-3)
    # MMPretrain's ResNet reads values while it is built.
    device = "meta" if name == "tiny_internimage" else "cpu"
    flops = ["analysis_tools/get_flops", config, "--shape", 64, 64, "--device"]
    if device == "cpu":
        assert "use --device cpu" in run(*flops, "meta", folder=workspace, fails=True)
    table = run(*flops, device, folder=workspace)
    size = sum(p.numel() for p in build(Config.fromfile(config), device).parameters())
    assert f"| total | {size / 1e6:.2f} |" in table
    run("analysis_tools/benchmark", config, "--shape", 64, 64, "--repeat", 1, folder=workspace)


def test_tools_for_detectors_say_so(workspace):
    image = next((workspace / "data" / "singles" / "val").glob("*/*.jpg"))
    checkpoint = workspace / "empty.pth"
    torch.save({}, checkpoint)
    config = CONFIGS / "tiny_internimage.py"
    log = run("image_demo", image, config, checkpoint, folder=workspace, fails=True)
    assert "error: default_scope: expected mmdet or mmseg, whose configs this tool takes" in log


HEADS = {
    "internimage/internimage-t_32xb128_in1k.py": dict(
        backbone=dict(channels=16, depths=(1, 1, 1, 1), groups=(1, 2, 4, 8)),
        neck=dict(in_channels=128, out_channels=192),
        head=dict(in_channels=192, num_classes=5),
    ),
    "internimage/internimage-h_32xb16_in1k-640px.py": dict(
        backbone=dict(
            channels=16, depths=(1, 1, 6, 1), groups=(1, 2, 4, 8), level2_post_norm_block_ids=(5,)
        ),
        neck=dict(in_channels=(64, 128), embed_dim=32, heads=2, out_channels=24),
        head=dict(in_channels=24, num_classes=5),
    ),
}


@pytest.mark.parametrize("style", ["official", "transformers", "with more classes"])
@pytest.mark.parametrize("base", HEADS)
def test_converted_official_checkpoint(base, style, tmp_path, load_tool, monkeypatch, capsys):
    config = tmp_path / "config.py"
    config.write_text(f"_base_ = {str(ROOT / 'configs' / base)!r}\nmodel = {HEADS[base]!r}\n")
    torch.manual_seed(0)
    model = build(Config.fromfile(config))
    ours = {
        key: torch.randn(value.shape) if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }
    official = {
        key.replace("head.fc.", "head.").removeprefix("backbone.").removeprefix("neck."): value
        for key, value in ours.items()
    }
    extra = []
    if style == "transformers":
        official = {
            "model." + re.sub(r"gamma(\d)$", r"layer_scale\1", key): value
            for key, value in official.items()
        }
    elif style == "with more classes":
        rows = torch.tensor([7, 0, 3, 8, 1])
        for leaf in ("weight", "bias"):
            kept = official[f"head.{leaf}"]
            official[f"head.{leaf}"] = torch.randn(9, *kept.shape[1:])
            official[f"head.{leaf}"][rows] = kept
        (tmp_path / "rows.txt").write_text("\n".join(map(str, rows.tolist())))
        extra = ["--classes", str(tmp_path / "rows.txt")]
    torch.save(dict(model=official), tmp_path / "official.pth")
    tool = load_tool("model_converters/official_to_openmmlab")
    arguments = [tmp_path / "official.pth", config, tmp_path / "out.pth", *extra]
    monkeypatch.setattr(sys, "argv", ["tool", *map(str, arguments)])
    tool.main()
    converted = torch.load(tmp_path / "out.pth")["state_dict"]
    model.load_state_dict(converted, strict=True)
    assert all(torch.equal(value, ours[key]) for key, value in converted.items())


@pytest.mark.parametrize(
    ("text", "message"),
    [("1 two", "expected whole numbers"), ("0 9", "expected indices from 0 to 8"), ("", "got 0")],
)
def test_wrong_class_files_are_named(text, message, tmp_path, load_tool):
    tool = load_tool("model_converters/official_to_openmmlab")
    file = tmp_path / "rows.txt"
    file.write_text(text)
    head = {"head.weight": torch.zeros(9, 2), "head.bias": torch.zeros(9)}
    with pytest.raises(UsageError, match=message):
        tool.select_classes(head, str(file), [])
    with pytest.raises(UsageError, match="no last layer"):
        tool.select_classes({}, str(file), [])


def test_exported_classifier_gives_the_scores_of_mmpretrain():
    onnxruntime = pytest.importorskip("onnxruntime")
    from mmpretrain.structures import DataSample

    from mmdcn.deployment import files
    from mmdcn.deployment.networks import Classifier

    torch.manual_seed(0)
    model = build(Config.fromfile(CONFIGS / "tiny_internimage.py")).eval()
    torch.nn.init.normal_(model.head.fc.weight)  # scores that differ
    network = Classifier(model, normalize=True).eval()
    image = torch.randint(0, 256, (2, 3, 64, 96)).float()
    prepared = model.data_preprocessor(dict(inputs=image), False)["inputs"]
    with torch.no_grad():
        found = model.predict(prepared, [DataSample() for _ in image])
        scores = network(image)
    expected = torch.stack([sample.pred_score for sample in found])
    torch.testing.assert_close(scores, expected)
    exported = files.to_onnx(network, image, dynamic=(0, 2, 3)).SerializeToString()
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    other = torch.randint(0, 256, (1, 3, 96, 64)).float()
    (ours,) = session.run(None, {"input": other.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(ours), network(other), rtol=1e-4, atol=1e-5)
