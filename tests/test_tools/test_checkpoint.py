"""Checkpoints: written whole or not at all, loaded without running code, found for resuming."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.logging import HistoryBuffer, MessageHub

from mmdcn.engine import checkpoint
from mmdcn.engine.checkpoint import (
    AtomicCheckpointHook,
    AtomicLocalBackend,
    CheckpointError,
    find_resumable,
    load_checkpoint_file,
)


def training_state(epoch=1):
    """The parts of a checkpoint of MMEngine's runner."""
    hub = MessageHub("test")
    for value in (3.0, 2.0):
        hub.update_scalar("train/loss", value)
    hub.update_info("best_score", np.float64(0.5))
    return dict(
        meta=dict(epoch=epoch, iter=epoch * 10, dataset_meta=dict(classes=("a", "b"))),
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


def test_install_covers_mmengine(tmp_path):
    # In a process of its own: it replaces parts of MMEngine.
    program = f"""
import torch
from mmengine.fileio import get_file_backend
from mmengine.runner.checkpoint import CheckpointLoader
from mmdcn.engine import checkpoint
checkpoint.install()
assert type(get_file_backend("x")) is checkpoint.AtomicLocalBackend
try:
    CheckpointLoader.load_checkpoint({str(tmp_path / "bad.pth")!r})
except checkpoint.CheckpointError as error:
    assert "mkdir" in str(error), error
else:
    raise AssertionError("loaded")
try:
    torch.load({str(tmp_path / "bad.pth")!r}, weights_only=False)
except Exception as error:
    assert "mkdir" in str(error), error
else:
    raise AssertionError("loaded")
"""
    torch.save(RunsCode(), tmp_path / "bad.pth")
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    assert not (tmp_path / "made_by_checkpoint").exists()


def test_local_writes_replace_the_file_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "file"
    backend = AtomicLocalBackend()
    backend.put(b"first", path)

    def killed(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        backend.put(b"second", path)
    assert path.read_bytes() == b"first"
    monkeypatch.undo()
    backend.put_text("zweite Fassung ü", path)
    assert path.read_text(encoding="utf-8") == "zweite Fassung ü"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_hook_deletes_the_old_checkpoint_after_writing_the_new_one(tmp_path):
    hook = AtomicCheckpointHook(interval=1, max_keep_ckpts=1, filename_tmpl="epoch_{}.pth")
    present_at_write = []

    def save_checkpoint(folder, name, *args, **kwargs):
        present_at_write.append(sorted(p.name for p in tmp_path.glob("*.pth")))
        if name == "epoch_3.pth":
            raise OSError("disk full")
        (tmp_path / name).write_bytes(b"")

    runner = SimpleNamespace(
        work_dir=str(tmp_path),
        logger=SimpleNamespace(info=lambda text: None),
        message_hub=MessageHub("hook"),
        save_checkpoint=save_checkpoint,
    )
    hook.before_train(runner)
    hook._save_checkpoint_with_step(runner, 1, {})
    hook._save_checkpoint_with_step(runner, 2, {})
    with pytest.raises(OSError, match="disk full"):
        hook._save_checkpoint_with_step(runner, 3, {})
    assert present_at_write == [[], ["epoch_1.pth"], ["epoch_2.pth"]]
    assert [p.name for p in tmp_path.glob("*.pth")] == ["epoch_2.pth"]
    assert type(hook.file_backend) is LocalBackend


def work_dir(path, *epochs, last=None):
    for time, epoch in enumerate(epochs):
        file = path / f"epoch_{epoch}.pth"
        torch.save(training_state(epoch), file)
        os.utime(file, (time, time))
    if last is not None:
        (path / "last_checkpoint").write_text(last)


def test_resumes_from_the_named_checkpoint(tmp_path):
    # The folder was moved since, and an older run had got further.
    work_dir(tmp_path, 9, 1, 2, last="/elsewhere/epoch_2.pth")
    assert find_resumable(tmp_path).name == "epoch_2.pth"


def test_resumes_from_a_checkpoint_whose_name_was_not_written_yet(tmp_path):
    work_dir(tmp_path, 1, 2, 3, last="epoch_2.pth")
    assert find_resumable(tmp_path).name == "epoch_3.pth"


@pytest.mark.parametrize("last", [None, "", "epoch_7.pth"])
def test_resumes_without_a_usable_name(tmp_path, last):
    work_dir(tmp_path, 1, 2, last=last)
    assert find_resumable(tmp_path).name == "epoch_2.pth"


def test_passes_over_broken_checkpoints_with_a_warning(tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(checkpoint, "print_log", lambda text, **kwargs: messages.append(text))
    work_dir(tmp_path, 1, 2, 3, last="epoch_3.pth")
    content = (tmp_path / "epoch_3.pth").read_bytes()
    (tmp_path / "epoch_3.pth").write_bytes(content[: len(content) // 2])
    (tmp_path / "epoch_4.pth.0.tmp").write_bytes(content)
    (tmp_path / "best_coco_bbox_mAP_epoch_9.pth").write_bytes(content)
    with open(tmp_path / "epoch_2.pth", "wb") as file:
        pickle.dump("not a checkpoint", file)
    assert find_resumable(tmp_path).name == "epoch_1.pth"
    assert len(messages) == 2
    assert "epoch_3.pth: the file is truncated" in messages[0]
    assert "epoch_2.pth" in messages[1]


def test_weights_alone_cannot_be_resumed(tmp_path):
    torch.save(dict(state_dict={}), tmp_path / "epoch_1.pth")
    assert find_resumable(tmp_path) is None
    assert find_resumable(tmp_path / "nowhere") is None
