"""The folder of a run: made at once, and used by one training run at a time."""

import fcntl
import os
import socket
from datetime import datetime
from pathlib import Path

from mmdcn.engine.errors import UsageError

LOCK = ".lock"
_held: list[int] = []


def prepare(work_dir: str | Path) -> Path:
    """Make a work folder.

    Raises:
        UsageError: It cannot be made.
    """
    path = Path(work_dir)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"work_dir {path}: a folder was expected, there is a file") from error
    except OSError as error:
        raise UsageError(f"work_dir {path}: it cannot be made: {error.strerror}") from error
    return path


def claim(work_dir: str | Path) -> None:
    """Make a work folder and hold it until this process ends, however it ends.

    Forked processes do not hold it, so that a worker that outlives a kill for a moment does not
    stand in the way of the next run. Where the file system has no locks, nothing is held.

    Raises:
        UsageError: It cannot be made or written to, or another process holds it.
    """
    path = prepare(work_dir)
    try:
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UsageError(f"work_dir {path}: it cannot be written to: {error.strerror}") from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        holder = os.read(descriptor, 200).decode(errors="replace") or "unknown process"
        os.close(descriptor)
        raise UsageError(
            f"work_dir {path}: another run uses it ({holder}); give this one another --work-dir"
        ) from error
    except OSError:
        os.close(descriptor)
        return
    try:
        os.ftruncate(descriptor, 0)
        since = datetime.now().isoformat(" ", "seconds")
        os.write(
            descriptor, f"process {os.getpid()} on {socket.gethostname()} since {since}".encode()
        )
    except OSError:  # no space left, which the run itself will tell; the lock holds all the same
        pass
    _held.append(descriptor)
