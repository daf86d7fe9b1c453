"""Pictures and numbers of what a node looks at."""

import json
import sys

import cv2
import pytest
import torch
from mmengine.config import Config
from suites.compare import NATIVE_ONLY

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

from mmdcn.engine import launch  # noqa: E402

pytestmark = [NATIVE_ONLY, pytest.mark.slow]


@pytest.fixture
def run(load_tool, workspace, root, monkeypatch):
    """Runs the tool on a config of this folder, with weights as they are at the start."""
    configs = root / "tests" / "test_tools" / "configs"
    monkeypatch.chdir(workspace.path)
    monkeypatch.syspath_prepend(str(configs))
    tool = load_tool("analysis_tools/deformation")
    image = next(iter(sorted((workspace / "data/deformed_shapes/val").iterdir())))

    def run(name, *args, compare=None):
        for config in filter(None, (name, compare)):
            torch.manual_seed(0)
            model = launch.build_model(Config.fromfile(configs / config))
            for module in model.modules():
                if hasattr(module, "conv_offset"):
                    torch.nn.init.normal_(module.conv_offset.weight, std=0.1)
            meta = dict(dataset_meta=dict(classes=("star", "crescent", "fish", "more")))
            torch.save(dict(state_dict=model.state_dict(), meta=meta), f"{config}.pth")
        if compare:
            args = ("--compare", str(configs / compare), f"{compare}.pth", *args)
        command = [str(image), str(configs / name), f"{name}.pth", *map(str, args)]
        monkeypatch.setattr(sys, "argv", ["deformation.py", *command, "--device", "cpu"])
        tool.main()
        stem = workspace / "work_dirs/deformation" / image.stem
        if "--preview-model" in args:
            return None
        assert cv2.imread(f"{stem}.png") is not None
        return json.loads(stem.with_suffix(".json").read_text())

    return run


def test_segmentor_with_its_region(run):
    found = run("tiny_fcn.py", "--point", 20, 30, "--region", "--epsilon", 0.5)["tiny_fcn"]
    assert found["node"].endswith("at (20, 30)")
    assert 0 < found["region_area"] <= 1 and found["region_error"] < 0.5
    for name in ("object_area", "receptive_field", "region"):
        assert 0 <= found[name] <= 1


def test_box_of_a_detector(run):
    (found,) = run("tiny_mask_rcnn.py", "--box", 8, 10, 50, 44).values()
    assert found["node"].startswith("box: ")
    assert 0 < found["receptive_field"] < 1 and 0 < found["object_area"] < 1


def test_two_models_beside_each_other(run):
    found = run("tiny_mask_rcnn.py", "--point", 30, 30, compare="tiny_fcn.py")
    assert list(found) == ["tiny_mask_rcnn", "tiny_fcn"]


def test_names_of_layers(run, capsys):
    run("tiny_mask_rcnn.py", "--preview-model")
    assert "samples a map of" in capsys.readouterr().out


@pytest.mark.parametrize(
    "config, args, message",
    [
        (
            "tiny_fcn.py",
            ("--point", 20, 3000),
            r"point: expected a pixel of \d+x\d+, got \(20, 3000\)",
        ),
        ("tiny_fcn.py", ("--box", 1, 2, 30, 40), "EncoderDecoder has no RoI head; choose a point"),
        ("tiny_mask_rcnn.py", ("--box", 9, 9, 9, 20), "box: expected x1 < x2 and y1 < y2"),
        ("tiny_mask_rcnn.py", ("--detection", 999), "detection: there are .*, got index 999"),
        (
            "tiny_fcn.py",
            ("--target-layers", "nothing"),
            "--target-layers: the model has no 'nothing'",
        ),
    ],
)
def test_mistakes_are_named(run, config, args, message):
    with pytest.raises(launch.UsageError, match=message):
        run(config, *args)
