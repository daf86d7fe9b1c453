"""Checkpoint files: written whole or not at all, loaded without running code."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub

from mmdcn.checkpoints import CheckpointError, load_checkpoint_file, open_replacing


def training_state():
    """The parts of a checkpoint of MMEngine's runner."""
    hub = MessageHub("test")
    for value in (3.0, 2.0):
        hub.update_scalar("train/loss", value)
    hub.update_info("best_score", np.float64(0.5))
    return dict(
        meta=dict(epoch=1, iter=10, dataset_meta=dict(classes=("a", "b"))),
        state_dict={"weight": torch.arange(1000.0)},
        message_hub=hub.state_dict(),
        optimizer=dict(state={}, param_groups=[dict(lr=0.1)]),
    )


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "epoch_1.pth"
    torch.save(training_state(), path)
    return path


def test_loads_what_mmengine_saves(whole):
    loaded = load_checkpoint_file(whole)
    assert torch.equal(loaded["state_dict"]["weight"], torch.arange(1000.0))
    history = loaded["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(history, HistoryBuffer)
    assert history.mean() == 2.5 and history.statistics("min") == 2.0
    assert loaded["message_hub"]["runtime_info"]["best_score"] == 0.5


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file_is_refused(tmp_path, zipped, share):
    path = tmp_path / "epoch_1.pth"
    torch.save(training_state(), path, _use_new_zipfile_serialization=zipped)
    load_checkpoint_file(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"epoch_1\.pth: .*truncated"):
        load_checkpoint_file(path)


def test_damaged_file_is_refused(whole):
    content = bytearray(whole.read_bytes())
    middle = content.index(b"weight")
    content[middle - 40 : middle] = bytes(40)
    whole.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"epoch_1\.pth: .*damaged"):
        load_checkpoint_file(whole)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.pth: there is no such file"):
        load_checkpoint_file(tmp_path / "nowhere.pth")


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("made_by_checkpoint",)


class ReachesCode:
    """Reaches a function through the attributes of harmless ones, as ``getattr`` would allow."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, "__init__")


@pytest.mark.parametrize("harmful", [RunsCode(), ReachesCode()], ids=lambda x: type(x).__name__)
def test_foreign_objects_are_refused_and_not_run(tmp_path, monkeypatch, harmful):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(training_state(), extra=harmful), "epoch_1.pth")
    with pytest.raises(CheckpointError, match=r"it holds .*(mkdir|getattr).* refused"):
        load_checkpoint_file("epoch_1.pth")
    assert not Path("made_by_checkpoint").exists()


def test_a_file_is_replaced_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "file"

    def write(content):
        with open_replacing(path) as file:
            file.write(content)

    def killed(descriptor):
        raise KeyboardInterrupt

    write(b"first")
    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write(b"second")
    monkeypatch.undo()
    assert path.read_bytes() == b"first"
    (path.parent / "file.0.tmp").write_bytes(b"left behind by a kill that nothing can catch")
    write(b"third")
    assert path.read_bytes() == b"third"
    assert [p.name for p in path.parent.iterdir()] == ["file"]
