"""Official checkpoint files as the initial weights of a backbone."""

import os
import pickle

import pytest
import torch
from mmengine.registry import MODELS

import mmdcn.models  # noqa: F401
from mmdcn.checkpoints import CheckpointError

CFG = dict(channels=16, depths=(1, 1, 2, 1), groups=(1, 2, 4, 8), layer_scale=1.0)
CLASSIFIER = {
    "conv_head.0.weight": (192, 128, 1, 1),
    "conv_head.1.0.weight": (192,),
    "conv_head.1.0.running_mean": (192,),
    "head.weight": (1000, 192),
    "head.bias": (1000,),
}


def build(name="InternImage", **kwargs):
    return MODELS.build(dict(type=f"mmdcn.{name}", **{**CFG, **kwargs}))


def load(path, name="InternImage", **kwargs):
    model = build(name, init_cfg=dict(type="Pretrained", checkpoint=str(path)), **kwargs)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    try:
        model.init_weights()
    except CheckpointError:
        after = model.state_dict()
        assert all(torch.equal(after[k], v) for k, v in before.items())
        raise
    return model


def weights(name="InternImage", **kwargs):
    return {k: torch.randn_like(v) for k, v in build(name, **kwargs).state_dict().items()}


def prefixed(state_dict, prefix):
    return {f"{prefix}{k}": v for k, v in state_dict.items()}


DETECTOR = {
    "neck.lateral_convs.0.conv.weight": torch.zeros(4),
    "rpn_head.rpn_cls.bias": torch.zeros(1),
}
LAYOUTS = {
    "bare": lambda s: s,
    "classifier": lambda s: {"model": s, "epoch": 300},
    "detector": lambda s: {"state_dict": {**prefixed(s, "backbone."), **DETECTOR}, "meta": {}},
    "parallel": lambda s: {"state_dict": prefixed(s, "module.")},
    "parallel detector": lambda s: {"state_dict": prefixed(s, "module.backbone.")},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_official_files(layout, tmp_path):
    expected = weights()
    torch.save(LAYOUTS[layout](expected), tmp_path / "file.pth")
    loaded = load(tmp_path / "file.pth").state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in expected.items())


def test_classifier_leaves_out_its_head_and_has_no_factors(tmp_path):
    expected = weights(layer_scale=None)
    head = {k: torch.randn(shape) for k, shape in CLASSIFIER.items()}
    torch.save({"model": {**expected, **head}}, tmp_path / "file.pth")
    loaded = load(tmp_path / "file.pth").state_dict()
    factors = {k for k in loaded if k.endswith(("gamma1", "gamma2"))}
    assert len(factors) == 10 and set(loaded) == set(expected) | factors
    assert all(torch.equal(loaded[k], v) for k, v in expected.items())
    assert all((loaded[k] == 1).all() for k in factors)


def test_flash_takes_the_averaged_weights(tmp_path):
    average, last = weights("FlashInternImage"), weights("FlashInternImage")
    torch.save({"model": last, "model_ema": average}, tmp_path / "file.pth")
    loaded = load(tmp_path / "file.pth", "FlashInternImage").state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in average.items())


def test_other_size_is_an_error(tmp_path):
    torch.save({"model": weights(channels=32)}, tmp_path / "file.pth")
    match = r"does not fit InternImage: other shapes: .*\(16, 3, 3, 3\) in the file, \(8, 3, 3, 3\)"
    with pytest.raises(CheckpointError, match=match):
        load(tmp_path / "file.pth")


def test_other_depth_is_an_error(tmp_path):
    torch.save({"model": weights(depths=(1, 1, 3, 1))}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=r"unexpected keys: levels\.2\.blocks\.2\..* more"):
        load(tmp_path / "file.pth")
    torch.save({"model": weights(depths=(1, 1, 1, 1))}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=r"keys missing: levels\.2\.blocks\.1\..* more"):
        load(tmp_path / "file.pth")


def test_truncated_file_is_an_error(tmp_path):
    path = tmp_path / "file.pth"
    torch.save({"model": weights()}, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="file.pth.*truncated"):
        load(path)


class Executes:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_file_does_not_run(tmp_path):
    trap = tmp_path / "executed"
    torch.save({"model": weights(), "extra": Executes(trap)}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="mkdir"):
        load(tmp_path / "file.pth")
    assert not trap.exists()
    pickle.loads(pickle.dumps(Executes(trap)))  # the trap itself works
    assert trap.exists()


@pytest.mark.parametrize(
    "content, match",
    [
        ([1, 2], "holds no state dict"),
        ({}, "holds no state dict"),
        ({"epoch": 3}, "expected tensors only, got int under 'epoch'"),
    ],
)
def test_file_without_weights_is_an_error(content, match, tmp_path):
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=match):
        load(tmp_path / "file.pth")


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        load(tmp_path / "file.pth")


def test_takes_urls(tmp_path, monkeypatch):
    expected = weights()
    torch.save({"model": expected}, tmp_path / "file.pth")
    url = (tmp_path / "file.pth").as_uri()
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))

    def file_instead(address, *args, **kwargs):
        assert address == "https://example.org/file.pth"
        return download(url, *args, **kwargs)

    download = torch.hub.download_url_to_file
    monkeypatch.setattr("torch.hub.download_url_to_file", file_instead)
    loaded = load("https://example.org/file.pth").state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in expected.items())
