"""Checkpoints of a run: safe in MMEngine too, never too few, old ones too."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.logging import MessageHub

from mmdcn.engine.checkpoint import AtomicCheckpointHook, AtomicLocalBackend
from mmdcn.engine.sharding import FSDPStrategy
from mmdcn.ops import ModulatedDeformConv2dPack


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("made_by_checkpoint",)


INSTALL = "from mmdcn.engine import checkpoint\ncheckpoint.install()\n"


def run_in_own_process(program, folder, first=INSTALL, **env):
    """Run a program after `install`, which replaces parts of MMEngine."""
    done = subprocess.run(
        [sys.executable, "-c", first + program],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_install_covers_mmengine(tmp_path):
    program = """
import torch
from mmdcn.checkpoints import CheckpointError
from mmengine.fileio import get_file_backend
from mmengine.runner.checkpoint import CheckpointLoader
assert type(get_file_backend("x")) is checkpoint.AtomicLocalBackend
try:
    CheckpointLoader.load_checkpoint("bad.pth")
except CheckpointError as error:
    assert "mkdir" in str(error), error
else:
    raise AssertionError("loaded")
try:
    torch.load("bad.pth", weights_only=False)
except Exception as error:
    assert "mkdir" in str(error), error
else:
    raise AssertionError("loaded")
"""
    torch.save(RunsCode(), tmp_path / "bad.pth")
    run_in_own_process(program, tmp_path)
    assert not (tmp_path / "made_by_checkpoint").exists()


LOAD_AS_OTHERS_DO = """
import torch
from mmengine.runner.checkpoint import load_checkpoint
try:
    load_checkpoint(torch.nn.Linear(1, 1), "bad.pth")
except Exception as error:
    print(type(error).__name__, error)
torch.load("good.pth", weights_only=False)
"""


def test_importing_models_protects_the_loader_of_mmengine(tmp_path):
    """The loader of ``init_detector`` and ``init_model``; torch.load is not ours to change."""
    torch.save(RunsCode(), tmp_path / "bad.pth")
    torch.save(dict(object=slice(1)), tmp_path / "good.pth")
    log = run_in_own_process(LOAD_AS_OTHERS_DO, tmp_path, "import mmdcn.models\n")
    assert "CheckpointError checkpoint bad.pth: it holds posix.mkdir" in log
    assert not (tmp_path / "made_by_checkpoint").exists()
    unrestricted = dict(TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1")
    run_in_own_process(LOAD_AS_OTHERS_DO, tmp_path, "import mmdcn.models\n", **unrestricted)
    assert (tmp_path / "made_by_checkpoint").exists()


def test_runner_loads_the_offset_keys_of_early_mmdetection(tmp_path):
    program = """
import torch
from mmengine.model import BaseModel, BaseTTAModel
from mmengine.runner import Runner
from mmdcn.ops import ModulatedDeformConv2dPack

class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 4, 1)
        self.conv2 = ModulatedDeformConv2dPack(4, 5, 3)

    def forward(self, inputs, mode):
        pass

class Augmented(BaseTTAModel):
    def merge_preds(self, predictions):
        pass

new = {key: torch.rand_like(value) for key, value in Model().state_dict().items()}
old = {key.replace("conv2.conv_offset.", "conv2_offset."): new[key] for key in new}
assert list(old) != list(new)
torch.save(dict(state_dict=old, meta={}), "old.pth")
for name, model in (("plain", Model()), ("augmented", Augmented(Model()))):
    runner = Runner(model, "runs", load_from="old.pth", experiment_name=name)
    runner.load_or_resume()
    loaded = getattr(runner.model, "module", runner.model).state_dict()
    assert all(torch.equal(loaded[key], new[key]) for key in new)
"""
    log = run_in_own_process(program, tmp_path)
    assert log.count("Load checkpoint from old.pth") == 2
    assert "missing keys" not in log and "unexpected key" not in log


def test_sharded_models_load_the_offset_keys_of_early_mmdetection():
    strategy = object.__new__(FSDPStrategy)
    strategy.model = torch.nn.ModuleDict(dict(conv2=ModulatedDeformConv2dPack(4, 5, 3)))
    strategy.id_to_name = {id(p): name for name, p in strategy.model.named_parameters()}
    new = {key: torch.rand_like(value) for key, value in strategy.model.state_dict().items()}
    old = {key.replace("conv2.conv_offset.", "conv2_offset."): new[key] for key in new}
    strategy.load_model_state_dict(old, strict=True)
    loaded = strategy.model.state_dict()
    assert all(torch.equal(loaded[key], new[key]) for key in new)


def test_local_backend_writes_text_in_one_step(tmp_path, monkeypatch):
    backend = AtomicLocalBackend()
    backend.put_text("erste Fassung", tmp_path / "file")

    def killed(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        backend.put_text("second", tmp_path / "file")
    monkeypatch.undo()
    assert (tmp_path / "file").read_text(encoding="utf-8") == "erste Fassung"
    backend.put_text("zweite Fassung ü", tmp_path / "file")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "zweite Fassung ü"


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
