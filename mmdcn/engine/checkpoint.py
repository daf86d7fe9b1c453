"""Checkpoints that survive a kill and that are safe to load.

MMEngine writes checkpoints in place, deletes the oldest one before it writes the next, and falls
back to an unrestricted unpickler. :func:`install` replaces these parts for the whole process:

- every file of the local backend is written to a temporary name and renamed, so that it is either
  whole or absent;
- local checkpoints are loaded by :func:`load_checkpoint_file`, and nothing else is ever unpickled
  without ``weights_only=True``, since a checkpoint may come from anywhere.
"""

import logging
import os
import re
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner.checkpoint import CheckpointLoader

from mmdcn.registry import HOOKS


class CheckpointError(RuntimeError):
    """A checkpoint is missing, not whole, or not safe to load."""


class AtomicLocalBackend(LocalBackend):
    """MMEngine's local file backend, with writes that replace the file in one step."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        # All processes may write the same file (MMEngine's metrics are). The name is the same in
        # the next run, which so overwrites what a kill has left behind.
        temporary = path.with_name(f"{path.name}.{get_rank()}.tmp")
        with open(temporary, "wb") as file:
            file.write(obj)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)

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


def _statistics_method(owner: Any, name: str) -> Any:
    """Stands in for ``getattr``, by which pickle names the methods that HistoryBuffer carries.

    MMEngine's own list of safe objects has the real one, with which a file can reach and run
    any function.
    """
    if owner is HistoryBuffer and name in ("min", "max", "mean", "current"):
        return getattr(owner, name)
    raise UnpicklingError(f"Unsupported GLOBAL getattr.{name}")


def _safe_globals() -> list:
    """What a checkpoint of MMEngine holds besides tensors and plain Python objects."""
    multiarray = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray
    kinds = (np.bool_, np.uint8, np.int32, np.int64, np.float32, np.float64)
    allowed = [HistoryBuffer, np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in kinds)]
    allowed.append((_statistics_method, "builtins.getattr"))
    for function in (multiarray._reconstruct, multiarray.scalar):
        # numpy 2 renamed the module; files of either version load with both.
        for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            allowed.append((function, f"{module}.{function.__name__}"))
    return allowed


def load_checkpoint_file(
    filename: str | Path, map_location: Any = None, mmap: bool | None = None
) -> Any:
    """Load a checkpoint without running code from it.

    Args:
        filename: Path of a file written by ``torch.save``.
        map_location: As in :func:`torch.load`.
        mmap: As in :func:`torch.load`.

    Returns:
        What the file holds, usually a dict with ``state_dict`` and ``meta``.

    Raises:
        CheckpointError: The file does not exist, is not whole, or holds objects other than
            tensors, numpy arrays and plain Python objects.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path}: there is no such file")
    size = f"{path.stat().st_size} bytes"
    with open(path, "rb") as file:
        # torch writes zip archives; their directory stands at the end.
        if file.read(2) == b"PK" and not zipfile.is_zipfile(path):
            raise CheckpointError(f"checkpoint {path}: the file is truncated ({size})")
    try:
        with torch.serialization.safe_globals(_safe_globals()):
            return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a damaged file can raise anything
        message = str(error)
        if foreign := re.search(r"GLOBAL (\S+)", message):
            raise CheckpointError(
                f"checkpoint {path}: it holds {foreign[1]}, which could run code when loaded, so "
                "it is refused. If you trust its source, load it with torch.load(..., "
                "weights_only=False) and save its 'state_dict' alone to a new file."
            ) from error
        reason = message.splitlines()[0] if message else "no further detail"
        raise CheckpointError(
            f"checkpoint {path}: the file cannot be read, so it is truncated, damaged or not a "
            f"checkpoint ({size}; {type(error).__name__}: {reason})"
        ) from error


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


def install() -> None:
    """Make this process write files atomically and load checkpoints safely."""
    # Also holds for downloaded files, and turns MMEngine's fallback into an error.
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    register_backend("local", AtomicLocalBackend, prefixes="", force=True)
    CheckpointLoader.register_scheme(prefixes="", loader=load_checkpoint_file, force=True)
