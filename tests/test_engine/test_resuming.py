"""Going on with a run: from the latest whole checkpoint that is enough for it."""

import os
import pickle
from types import SimpleNamespace

import pytest
import torch

from mmdcn.engine import resuming
from mmdcn.engine.resuming import (
    ResumeCheckHook,
    find_resumable,
    how_to_go_on,
    why_not_resumable,
)


def training_state():
    return dict(
        meta=dict(epoch=1, iter=2),
        state_dict=dict(weight=torch.arange(9.0)),
        message_hub={},
        optimizer={},
    )


def work_dir(path, *epochs, last=None):
    for time, epoch in enumerate(epochs):
        file = path / f"epoch_{epoch}.pth"
        torch.save(training_state(), file)
        os.utime(file, (time, time))
    if last is not None:
        (path / "last_checkpoint").write_bytes(last)


def test_resumes_from_the_named_checkpoint(tmp_path):
    # The folder was moved since, and an older run had got further.
    work_dir(tmp_path, 9, 1, 2, last=b"/elsewhere/epoch_2.pth")
    assert find_resumable(tmp_path).name == "epoch_2.pth"


def test_resumes_from_a_checkpoint_whose_name_was_not_written_yet(tmp_path):
    work_dir(tmp_path, 1, 2, 3, last=b"epoch_2.pth")
    assert find_resumable(tmp_path).name == "epoch_3.pth"


@pytest.mark.parametrize("last", [None, b"", b"epoch_7.pth", b"\xff\x00\xfe", b"/" * 5000])
def test_resumes_without_a_usable_name(tmp_path, last):
    work_dir(tmp_path, 1, 2, last=last)
    assert find_resumable(tmp_path).name == "epoch_2.pth"


def test_passes_over_broken_checkpoints_with_a_warning(tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(resuming, "print_log", lambda text, **kwargs: messages.append(text))
    work_dir(tmp_path, 1, 2, 3, last=b"epoch_3.pth")
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


def test_passes_over_links_to_nothing(tmp_path):
    work_dir(tmp_path, 1, last=b"epoch_2.pth")
    (tmp_path / "epoch_2.pth").symlink_to("nowhere.pth")
    assert find_resumable(tmp_path).name == "epoch_1.pth"
    (tmp_path / "last_checkpoint").unlink()
    (tmp_path / "last_checkpoint").symlink_to("nowhere")
    assert find_resumable(tmp_path).name == "epoch_1.pth"


def test_weights_alone_cannot_be_resumed(tmp_path):
    torch.save(dict(state_dict={}), tmp_path / "epoch_1.pth")
    assert find_resumable(tmp_path) is None
    assert find_resumable(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(optimizer=None), "it has no optimizer, so it holds weights alone"),
        (dict(meta=None, optimizer=None), "it has no meta, optimizer"),
        (dict(state_dict=None), "it is not one of a training run"),
        (dict(meta=[]), "meta: a dict was expected, got list"),
        (dict(meta=dict(epoch=1, iter="2")), "meta.iter: the number of those that are done"),
    ],
)
def test_what_is_missing_for_resuming_is_named(change, message):
    content = {k: v for k, v in (training_state() | change).items() if v is not None}
    assert message in why_not_resumable(content)
    assert not why_not_resumable(training_state())


def test_the_program_in_a_checkpoint_is_not_run():
    """MMEngine runs the config of the earlier run, as saved in the checkpoint."""
    content = training_state()
    content["meta"]["config"] = "raise SystemExit"
    runner = SimpleNamespace(_resume=True, _load_from="epoch_1.pth", param_schedulers=None)
    ResumeCheckHook().after_load_checkpoint(runner, content)
    assert "config" not in content["meta"]


def test_one_says_how_to_go_on(tmp_path):
    assert "no checkpoint" in how_to_go_on(tmp_path)
    work_dir(tmp_path, 1)
    assert f"go on from the last checkpoint in {tmp_path} with --resume" in how_to_go_on(tmp_path)
