"""ONNX files of whole models: several sizes, what they say about themselves, the tools."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

for package in ("mmdet", "mmseg", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)
import onnx  # noqa: E402
import onnxruntime  # noqa: E402

from mmdcn.deployment import files  # noqa: E402
from mmdcn.deployment.detectors import network_of  # noqa: E402
from mmdcn.deployment.networks import Network  # noqa: E402
from mmdcn.engine.errors import UsageError  # noqa: E402

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "tests" / "test_tools" / "configs"


def run(file, image):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": image.numpy()})


@pytest.mark.long
def test_detector_of_several_sizes(make_model):
    """Of the smaller one, some levels have fewer anchors than proposals are wanted."""
    model = make_model("tiny_mask_rcnn")
    network = network_of(model, normalize=True).eval()
    example = torch.randint(0, 256, (1, 3, 96, 128)).float()
    file = files.to_onnx(network, example, dynamic=(2, 3)).SerializeToString()
    for seed, size in enumerate([(96, 128), (72, 80), (160, 96)]):
        generator = torch.Generator().manual_seed(seed)
        image = torch.randint(0, 256, (1, 3, *size), generator=generator).float()
        with torch.no_grad():
            expected = network(image)
        assert (expected[0][:, 4] > 0).sum() >= 2
        for ours, theirs in zip(run(file, image), expected, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=2e-3)


TINY = {
    "tiny_fcn": ["--dynamic"],
    "tiny_mask_rcnn": ["--normalize", "--opset", "19"],
}


@pytest.fixture(scope="module", params=TINY)
def exported(request, make_model, shapes, tmp_path_factory):
    """Model, file that the tool has written, what it has printed, and the image of its check."""
    folder = tmp_path_factory.mktemp("onnx")
    name = request.param
    model = make_model(name)
    meta = dict(classes=("background",) * (name == "tiny_fcn") + ("star", "crescent", "fish"))
    checkpoint = folder / "model.pth"
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=meta)), checkpoint)
    image, out = shapes / "val" / "000003.jpg", folder / "deep" / "model.onnx"
    arguments = [CONFIGS / f"{name}.py", checkpoint, "--out", out, "--image", image]
    done = call("export_onnx", *arguments, "--shape", 96, 96, *TINY[name])
    assert done.returncode == 0, done.stdout + done.stderr
    return name, out, done.stdout, image


def call(tool, *arguments):
    path = ROOT / "tools" / "deployment" / f"{tool}.py"
    environment = {**os.environ, "PYTHONPATH": f"{CONFIGS}:{ROOT}"}
    environment["OMP_NUM_THREADS"] = "1"
    return subprocess.run(
        [sys.executable, path, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
    )


def test_tool_checks_what_it_wrote(exported):
    name, out, printed, _ = exported
    assert sorted(path.name for path in out.parent.iterdir()) == ["model.onnx"]
    model = onnx.load(out)
    about = {item.key: json.loads(item.value) for item in model.metadata_props
             if item.key in ("task", "classes", "shape", "normalize", "dynamic")}  # fmt: skip
    assert about["shape"] == [96, 96] and about["classes"][-1] == "fish"
    if name == "tiny_fcn":
        assert "output (1, 96, 96): 0.000% of 9216 values differ" in printed
        assert about["task"] == "segmentation" and about["dynamic"]
        axes = model.graph.input[0].type.tensor_type.shape.dim
        assert [bool(axis.dim_param) for axis in axes] == [True, False, True, True]
    else:
        assert about["task"] == "detection" and about["normalize"]
        for line in ("dets (10, 5)", "labels (10,)", "masks (10, 28, 28)"):
            assert line in printed


def test_demo_draws_without_torch(exported, tmp_path):
    name, out, _, image = exported
    done = call(
        "image_demo_onnx", image, out, "--out-file", tmp_path / "drawn.png", "--score-thr", 0
    )
    assert done.returncode == 0, done.stderr
    assert ("objects" if name == "tiny_mask_rcnn" else "classes") in done.stdout
    drawn = cv2.imread(str(tmp_path / "drawn.png"))
    assert drawn.shape == (96, 96, 3) and (drawn != cv2.imread(str(image))).any()
    source = (ROOT / "tools" / "deployment" / "image_demo_onnx.py").read_text()
    assert "import torch" not in source and "mmdcn" not in source


def test_demo_names_what_is_wrong(exported, tmp_path):
    _, out, _, image = exported
    (tmp_path / "text.jpg").write_text("no image")
    other = tmp_path / "other.onnx"
    value = onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["input"], ["output"])
    result = onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "g", [value], [result])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), other)
    for arguments, message in (
        ((tmp_path / "none.jpg", out), "there is no such file"),
        ((tmp_path / "text.jpg", out), "cannot be read as an image"),
        ((image, other), "was not written by tools/deployment/export_onnx.py"),
    ):
        done = call("image_demo_onnx", *arguments)
        assert done.returncode == 1 and message in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def test_weights_of_more_than_a_file_holds_lie_beside_it(tmp_path, monkeypatch):
    class Scaled(Network):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.weight = torch.nn.Parameter(torch.randn(3, 64, 64))

        def forward(self, image):
            return image * self.weight

    network = Scaled().eval()
    model = files.to_onnx(network, torch.randn(1, 3, 64, 64))
    monkeypatch.setattr(files, "LARGEST", 1000)
    files.save(model, tmp_path / "big.onnx", dict(task="none"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.onnx", "big.onnx.data"]
    image = torch.randn(1, 3, 64, 64)
    (found,) = run(str(tmp_path / "big.onnx"), image)
    torch.testing.assert_close(torch.from_numpy(found), network(image).detach())


def test_interrupted_writing_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_text("old")

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(onnx, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        files.save(onnx.ModelProto(), tmp_path / "model.onnx", {})
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_text() == "old"


def test_pooling_to_cells_is_exported_for_one_size_only():
    """The exporter writes the window of the example, without a word."""

    class Pooling(Network):
        def __init__(self, cells):
            torch.nn.Module.__init__(self)
            self.pool = torch.nn.AdaptiveAvgPool2d(cells)

        def forward(self, image):
            return self.pool(image)

    example = torch.randn(2, 3, 4, 4)
    for cells in (2, (1, 3)):
        with pytest.raises(UsageError, match="--dynamic: pool pools to .* cells"):
            files.to_onnx(Pooling(cells).eval(), example, dynamic=(2, 3))
    network = Pooling(1).eval()
    file = files.to_onnx(network, example, dynamic=(0, 2, 3)).SerializeToString()
    image = torch.randn(1, 3, 5, 7)
    torch.testing.assert_close(torch.from_numpy(run(file, image)[0]), network(image))
