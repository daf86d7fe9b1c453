"""The largest models, in shards over two processes, as a user trains them."""

import math

import pytest

pytest.importorskip("mmdet")
pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_trains_resumes_and_serves_other_configs(workspace):
    run = workspace / "work_dirs" / "tiny_fsdp"
    workspace.run("train", "tiny_fsdp.py", processes=2)
    more = ["--resume", "--cfg-options", "train_cfg.max_iters=4"]
    log = workspace.run("train", "tiny_fsdp.py", *more, processes=2)
    losses = workspace.scalars(run, "loss")
    assert sorted(losses) == [1, 2, 3, 4] and all(map(math.isfinite, losses.values()))
    assert (run / "last_checkpoint").read_text().endswith("iter_4.pth")
    assert "coco/bbox_mAP" in log
    # one process, one piece
    whole = ["--cfg-options", "runner_type=Runner", "strategy=None"]
    log = workspace.run("test", "tiny_fsdp.py", run / "iter_4.pth", *whole)
    assert "unexpected key" not in log and "missing keys" not in log
    assert "coco/bbox_mAP" in log
