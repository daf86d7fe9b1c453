"""Checkpoints of a run: they survive a kill, and they are safe to load.

MMEngine writes checkpoints in place, deletes the oldest one before it writes the next, and falls
back to an unrestricted unpickler. :func:`install` replaces these parts for the whole process:

- every file of the local backend is written to a temporary name and renamed, so that it is either
  whole or absent;
- checkpoints are loaded by :func:`mmdcn.checkpoints.load_checkpoint_file`, and nothing else is ever
  unpickled without ``weights_only=True``, since a checkpoint may come from anywhere;
- offset convolutions of early MMDetection checkpoints find their place in today's layers, and
  weights of another model are an error and not a warning, see :mod:`mmdcn.engine.fitting`.
"""

import os
from pathlib import Path
from typing import Any

from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import checkpoint as mmengine_checkpoint

from mmdcn.checkpoints import mmengine_loader, open_replacing
from mmdcn.engine.fitting import load_state_dict
from mmdcn.registry import HOOKS


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


def install() -> None:
    """Make this process write files atomically and load checkpoints safely, old ones too."""
    # Also turns the fallbacks of others to an unrestricted unpickler into errors.
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    os.environ.pop(mmengine_loader.UNRESTRICTED, None)
    register_backend("local", AtomicLocalBackend, prefixes="", force=True)
    mmengine_loader.protect()
    # Runners, `init_cfg` and the inference functions of MMDetection and MMSegmentation go this way.
    mmengine_checkpoint.load_state_dict = load_state_dict
