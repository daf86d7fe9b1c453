"""Checkpoints of a run: they survive a kill, and they are safe to load.

MMEngine writes checkpoints in place, deletes the oldest one before it writes the next, and falls
back to an unrestricted unpickler. :func:`install` replaces these parts for the whole process:

- every file of the local backend is written to a temporary name and renamed, so that it is either
  whole or absent;
- local checkpoints are loaded by :func:`mmdcn.checkpoints.load_checkpoint_file`, and nothing else
  is ever unpickled without ``weights_only=True``, since a checkpoint may come from anywhere;
- offset convolutions of early MMDetection checkpoints find their place in today's layers.
"""

import logging
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import Tensor, nn

from mmdcn.checkpoints import (
    CheckpointError,
    load_checkpoint_file,
    open_replacing,
    rename_old_offset_keys,
)
from mmdcn.engine.wrappers import unwrapped
from mmdcn.registry import HOOKS

_load_state_dict = mmengine_checkpoint.load_state_dict


class AtomicLocalBackend(LocalBackend):
    """MMEngine's local file backend, with writes that replace the file in one step."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        with open_replacing(filepath) as file:
            file.write(obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = "utf-8") -> None:
        self.put(obj.encode(encoding), filepath)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's checkpoint hook, but a run that is killed keeps as many checkpoints as it should.

    MMEngine deletes the oldest checkpoint before it writes the next one: with
    ``max_keep_ckpts=1`` a kill in between leaves none. This hook deletes afterwards.
    """

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        deletion = _DeferredDeletion(self.file_backend)
        self.file_backend = deletion
        try:
            super()._save_checkpoint_with_step(runner, step, meta)
        finally:
            self.file_backend = deletion.backend
        deletion.run()


class _DeferredDeletion:
    """A file backend whose ``remove`` and ``rmtree`` wait for :meth:`run`."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.pending: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self.pending.append(("remove", path))

    def rmtree(self, path: str) -> None:
        self.pending.append(("rmtree", path))

    def run(self) -> None:
        for method, path in self.pending:
            getattr(self.backend, method)(path)


def find_resumable(work_dir: str | Path) -> Path | None:
    """The latest whole training checkpoint of a work folder.

    Files that are not whole are named in a warning and passed over.

    Args:
        work_dir: Folder with the ``epoch_*.pth`` or ``iter_*.pth`` files of a training run.

    Returns:
        Path of the checkpoint to resume from; None if there is none.
    """
    for path in _candidates(Path(work_dir)):
        try:
            # With mmap the tensors stay on disk.
            checkpoint = load_checkpoint_file(path, "cpu", mmap=zipfile.is_zipfile(path))
        except CheckpointError as error:
            print_log(f"Passed over for resuming: {error}", logger="current", level=logging.WARNING)
            continue
        if isinstance(checkpoint, dict) and "message_hub" in checkpoint:
            return path
    return None


def _candidates(work_dir: Path) -> list[Path]:
    """Training checkpoints of a folder, the one to try first at the front."""
    steps = {}
    for path in work_dir.glob("*.pth"):
        if match := re.fullmatch(r"(?:epoch|iter)_(\d+)", path.stem):
            steps[path] = int(match[1])
    # A kill can strike after a checkpoint was written and before its name is written here.
    last = work_dir / "last_checkpoint"
    last = work_dir / Path(last.read_text().strip()).name if last.is_file() else None

    def rank(path: Path) -> tuple:
        written = path.stat().st_mtime
        further = last not in steps or (
            steps[path] > steps[last] and written >= last.stat().st_mtime
        )
        return further, path == last, written

    return sorted(steps, key=rank, reverse=True)


def load_state_dict(module: nn.Module, state_dict: Mapping[str, Tensor], *args, **kwargs) -> None:
    """MMEngine's function, which also takes the offset keys of early MMDetection checkpoints."""
    own = unwrapped(module).state_dict()
    _load_state_dict(module, rename_old_offset_keys(state_dict, own), *args, **kwargs)


def install() -> None:
    """Make this process write files atomically and load checkpoints safely, old ones too."""
    # Also holds for downloaded files, and turns MMEngine's fallback into an error.
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    register_backend("local", AtomicLocalBackend, prefixes="", force=True)
    mmengine_checkpoint.CheckpointLoader.register_scheme(
        prefixes="", loader=load_checkpoint_file, force=True
    )
    # Runners, `init_cfg` and the inference functions of MMDetection and MMSegmentation go this way.
    mmengine_checkpoint.load_state_dict = load_state_dict
