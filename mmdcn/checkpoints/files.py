"""Files that are either whole or absent, and that are safe to load."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import numpy as np
import torch
import torch.distributed as dist

try:
    from mmengine.logging import HistoryBuffer
except ModuleNotFoundError:  # plain PyTorch has no files with such a buffer
    HistoryBuffer = None


class CheckpointError(RuntimeError):
    """A checkpoint is missing, not whole, not safe to load, or of another model."""


@contextmanager
def open_replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file to write, which takes its place in one step when the block ends.

    Whatever happens before that, a file of this name stays as it is.

    Args:
        path: Name of the file; missing folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # All processes may write the same file (MMEngine's metrics are). The name is the same in the
    # next run, which so overwrites what a kill has left behind.
    rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
    temporary = path.with_name(f"{path.name}.{rank}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
    allowed = [np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in kinds)]
    if HistoryBuffer is not None:
        allowed += [HistoryBuffer, (_statistics_method, "builtins.getattr")]
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
