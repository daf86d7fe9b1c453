"""Files that are either whole or absent, and that are safe to load."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
import torch.distributed as dist

from mmdcn.checkpoints.unpickling import allowed_globals, with_numpy


class CheckpointError(RuntimeError):
    """A checkpoint is missing, not whole, not safe to load, or of another model."""


@contextmanager
def open_replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file to write, which takes its place in one step when the block ends.

    Whatever happens before that, a file of this name stays as it is.

    Args:
        path: Name of the file; missing folders are made.

    Raises:
        OSError: The file cannot be written; nothing of it is left.
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
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        # No space left, for example, which is told without the name of the file.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _check_records(path: Path) -> None:
    """Compare the content of a zip archive with the checksums in it, which PyTorch does not do.

    Raises:
        Exception: A record is damaged. Of several kinds, as the directory may be damaged too.
    """
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        # torch.serialization.set_crc32_options(False) writes zeros.
        if any(record.CRC for record in records):
            for record in records:
                with archive.open(record) as file:
                    while file.read(2**20):
                        pass


def load_checkpoint_file(
    filename: str | Path, map_location: Any = None, mmap: bool | None = None
) -> Any:
    """Load a checkpoint without running code from it.

    The checksums in the file are compared with its content first; files of ``torch.save`` from
    before PyTorch 1.6 have none.

    Args:
        filename: Path of a file written by ``torch.save``.
        map_location: As in :func:`torch.load`.
        mmap: As in :func:`torch.load`.

    Returns:
        What the file holds, usually a dict with ``state_dict`` and ``meta``.

    Raises:
        CheckpointError: The file does not exist, is not whole, or holds objects other than
            tensors, numpy's numbers and arrays of them, and plain Python objects.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path}: there is no such file")
    size = f"{path.stat().st_size} bytes"
    with open(path, "rb") as file:
        # torch writes zip archives; their directory stands at the end.
        is_zip = zipfile.is_zipfile(file)
        file.seek(0)
        if file.read(2) == b"PK" and not is_zip:
            raise CheckpointError(f"checkpoint {path}: the file is truncated ({size})")
    try:
        if is_zip:
            _check_records(path)
        with torch.serialization.safe_globals(allowed_globals()):
            return with_numpy(
                torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
            )
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
        # PyTorch's advice comes first, the reason last.
        lines = message.rpartition("WeightsUnpickler error: ")[2].strip().splitlines()
        reason = lines[0] if lines else "no further detail"
        raise CheckpointError(
            f"checkpoint {path}: the file cannot be read, so it is truncated, damaged or not a "
            f"checkpoint ({size}; {type(error).__name__}: {reason})"
        ) from error
