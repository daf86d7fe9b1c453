"""The sheet of annotations beside predictions."""

import argparse
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

from mmdcn.engine import launch  # noqa: E402


@pytest.fixture
def tool(load_tool):
    return load_tool("analysis_tools/draw_results")


def test_one_object_is_drawn_in_each_place(tool):
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30]])
    objects = InstanceData(
        bboxes=boxes, scores=torch.tensor([0.5, 0.9, 0.6, 0.2]), labels=torch.arange(4)
    )
    # the first is covered by the second (0.9 of their union), the third by half of it only
    assert tool.best_objects(objects, 0.3).labels.tolist() == [1, 2]
    assert tool.best_objects(objects, 0.1).labels.tolist() == [1, 2, 3]
    assert len(tool.best_objects(objects, 0.95)) == 0


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 4, 4), (0, 0, 4, 4), 1),
        ((0, 0, 4, 4), (2, 0, 6, 4), 1 / 3),
        ((0, 0, 1, 1), (1, 1, 2, 2), 0),
    ],
)
def test_overlap(tool, a, b, expected):
    a, b = (torch.tensor(box, dtype=torch.float) for box in (a, b))
    assert tool.overlap(a, b) == pytest.approx(expected)


def test_labels_are_in_the_colours_of_their_classes(tool):
    palette = [[255, 0, 0], [0, 0, 255]]
    dataset = SimpleNamespace(metainfo=dict(classes=("a", "b"), palette=palette))
    shown = []
    axes = SimpleNamespace(imshow=shown.append)
    labels = np.array([[0, 1, 255]])
    tool.draw_labels(axes, np.full((1, 3, 3), 0.5), labels, dataset)
    expected = [[0.4 * 0.5 + 0.6, 0.2, 0.2], [0.2, 0.2, 0.4 * 0.5 + 0.6], [0.5] * 3]
    np.testing.assert_allclose(shown[0][0], expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_fcn.py", "tiny_mask_rcnn.py"])
def test_a_sheet(tool, name, workspace, root, monkeypatch):
    configs = root / "tests" / "test_tools" / "configs"
    monkeypatch.chdir(workspace.path)
    monkeypatch.syspath_prepend(str(configs))
    cfg = Config.fromfile(configs / name)
    model = launch.build_model(cfg)
    torch.save(dict(state_dict=model.state_dict(), meta={}), "weights.pth")
    args = argparse.Namespace(
        checkpoint="weights.pth", count=3, score_thr=0.0, device="cpu", out_file="new/sheet.png"
    )
    assert tool.draw_sheet(cfg, args) == 3
    sheet = cv2.imread("new/sheet.png")
    assert sheet.shape[1] == 1440 and len(np.unique(sheet.reshape(-1, 3), axis=0)) > 100
