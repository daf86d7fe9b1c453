"""Weights of another model are an error, or a warning where they are trained further."""

import pytest
import torch
from torch import nn

from mmdcn.checkpoints import CheckpointError
from mmdcn.engine import fitting


class Model(nn.Module):
    def __init__(self, channels=4, **parts):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels))
        for name, part in parts.items():
            self.add_module(name, part)


def load(model, weights, whole):
    with fitting.loading("file.pth", whole):
        fitting.load_state_dict(model, weights)


@pytest.fixture
def messages(monkeypatch):
    texts = []
    monkeypatch.setattr(fitting, "print_log", lambda text, **kwargs: texts.append(text))
    return texts


@pytest.mark.parametrize("whole", [True, False])
def test_weights_that_fit_are_loaded(whole, messages):
    weights = Model().state_dict()
    model = Model()
    load(model, weights, whole)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert not messages


def left_out(keys):
    return {key: value for key, value in Model().state_dict().items() if key not in keys}


def added(model=None, **values):
    return {**(model or Model()).state_dict(), **values}


OTHERS = {
    "a weight is missing": (left_out(["backbone.0.bias"]), "keys missing: backbone.0.bias"),
    "a weight too many": (added(x=torch.ones(1)), "unexpected keys: x"),
    "a deeper backbone": (
        added(**{"backbone.2.weight": torch.ones(1)}),
        "unexpected keys: backbone.2.weight",
    ),
    "other shapes": (
        left_out(["backbone.0.weight"]) | {"backbone.0.weight": torch.ones(4, 3, 1, 1)},
        r"other shapes: backbone.0.weight \(\[4, 3, 1, 1\] in the file, \[4, 3, 3, 3\] here\)",
    ),
    "a part without which it is another": (
        added(Model(bbox_head=nn.Linear(2, 2))),
        "unexpected keys: bbox_head.weight, bbox_head.bias",
    ),
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_weights_are_an_error_or_a_warning(other, messages):
    weights, message = OTHERS[other]
    match = f"file.pth: it is of another model than the config: [4-6] of 6 weights .*{message}"
    with pytest.raises(CheckpointError, match=match):
        load(Model(), weights, whole=True)
    assert not messages
    model = Model()
    load(model, weights, whole=False)
    assert len(messages) == 1 and "weights of the model are in the file" in messages[0]
    key = "backbone.1.weight"
    assert torch.equal(model.state_dict()[key], weights[key])


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("weights", [{}, {"x": torch.ones(1)}, Model(9).state_dict()])
def test_nothing_that_fits_is_an_error(weights, whole):
    weights = {k: v for k, v in weights.items() if k != "backbone.0.num_batches_tracked"}
    with pytest.raises(CheckpointError, match="another model than the config: 0 of 6"):
        load(Model(), weights, whole)


@pytest.mark.parametrize(
    "weights",
    [
        left_out(["backbone.1.num_batches_tracked"]),
        added(**{"backbone.0.num_batches_tracked": torch.tensor(1)}),
        added(**{"data_preprocessor.mean": torch.ones(3)}),
        added(ema_backbone_0_weight=torch.ones(1)),
        added(Model(auxiliary_head=nn.Linear(2, 2))),
        added(Model(roi_head=nn.ModuleDict(dict(mask_head=nn.Linear(2, 2))))),
    ],
)
def test_what_openmmlab_leaves_out_or_adds_is_no_mistake(weights, messages):
    load(Model(), weights, whole=True)
    assert not messages


def test_a_part_that_the_model_has_is_not_left_out():
    weights = added(Model(auxiliary_head=nn.Linear(2, 2)))
    del weights["auxiliary_head.bias"]
    with pytest.raises(CheckpointError, match="keys missing: auxiliary_head.bias"):
        load(Model(auxiliary_head=nn.Linear(2, 2)), weights, whole=True)


def test_values_that_are_no_tensors():
    with pytest.raises(CheckpointError, match="expected tensors only, got list under 'backbone"):
        load(Model(), added(**{"backbone.0.bias": [1.0] * 4}), whole=True)


def test_outside_of_the_block_mmengine_decides(messages):
    with pytest.raises(RuntimeError, match="missing keys in source state_dict: backbone.0.bias"):
        fitting.load_state_dict(Model(), left_out(["backbone.0.bias"]), strict=True)


def test_errors_of_a_foreign_state_become_one_line():
    with pytest.raises(CheckpointError, match="file.pth: its state .*: KeyError: 'x'$"):
        with fitting.explaining("file.pth"):
            dict()["x"]
    with pytest.raises(torch.OutOfMemoryError), fitting.explaining("file.pth"):
        raise torch.OutOfMemoryError("no room")
