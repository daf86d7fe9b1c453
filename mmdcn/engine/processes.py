"""How the processes of a run end: in order when told to, and never one without the others.

- Ctrl-C and SIGTERM say at once how to go on, stop the run, and end it after `GRACE` seconds even
  if something hangs; a second one ends it at once.
- Processes that are started with :mod:`multiprocessing`, the workers of data loaders above all, end
  with the one that started them, even if that is killed. PyTorch's workers look for their parent
  themselves, but not while they wait for room in its queue.
- ``mim``, which starts the tools, ends with them, see :func:`leave`, and they end with it.
"""

import contextlib
import ctypes
import multiprocessing
import multiprocessing.util
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

GRACE = 5  # seconds
PR_SET_PDEATHSIG = 1

_stopped_by: int | None = None
_told = threading.Event()  # `stop_message` is printed
stop_message: Callable[[], str] = "stopped".format  # a tool may put its own here


def is_main_process() -> bool:
    """Whether this is the first process of the run, also before the group is there."""
    names = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
    return next((os.environ[name] for name in names if name in os.environ), "0") == "0"


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Let the kernel send this process a signal when its parent ends. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def _begin_child(_: object = None) -> None:
    """In a process that multiprocessing has started: leave signals to its parent, die with it."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.excepthook = _report_but_lost_connections
    die_with_parent()
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)


def _report_but_lost_connections(kind, error, traceback) -> None:
    """Exception hook of a process that hands tensors to its parent.

    The thread that does so loses its connection when the parent stops in the middle of it. A parent
    that does not stop meets the loss itself and raises.
    """
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, traceback)


def end_children_with_parent() -> None:
    """Make all processes that multiprocessing starts from now on end with this one.

    Those that do not begin as a copy of this process have to call this themselves. They import the
    main module anew, so the call has to stand where that runs it.
    """
    multiprocessing.util.register_after_fork(_begin_child, _begin_child)
    if multiprocessing.current_process().name != "MainProcess":
        _begin_child()


def stop_on_signals() -> None:
    """Make Ctrl-C and SIGTERM end this process in order: ``KeyboardInterrupt`` in the main thread.

    What they say is `stop_message`.
    """
    if _is_from_mim():
        die_with_parent(signal.SIGTERM)
    # What nohup or a shell ignores for us stays ignored.
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, _stop)
    # A thread, since the main one does not listen while it computes.
    threading.Thread(target=_watch, args=(reader, writer, numbers), daemon=True).start()


def _stop(number: int, _: object) -> None:
    global _stopped_by
    if _stopped_by is None:
        _stopped_by = number
        raise KeyboardInterrupt


def _watch(reader: socket.socket, writer: socket.socket, numbers: list[int]) -> None:
    """Wait for a signal. `writer` is where Python writes the numbers of all that it handles."""

    def wait() -> int:
        while (number := reader.recv(1)[0]) not in numbers:
            pass
        return number

    number = wait()
    # Where no thread of Python gets to run, the alarm's default action ends the process.
    signal.alarm(2 * GRACE)
    if is_main_process():
        os.write(2, f"\n{stop_message()}\n".encode())
    _told.set()
    reader.settimeout(GRACE)
    with contextlib.suppress(TimeoutError):
        wait()
    os._exit(128 + number)


def _is_from_mim() -> bool:
    """Whether ``mim train``, ``mim test`` or ``mim run`` has started this process."""
    try:
        command = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    except OSError:
        return False
    words = [os.path.basename(os.fsdecode(word)) for word in command.split(b"\0") if word][:5]
    follows_mim = words[words.index("mim") + 1 :][:1] if "mim" in words else []
    return any(name.startswith(word) for word in follows_mim for name in ("train", "test", "run"))


def leave(status: int) -> NoReturn:
    """End the process.

    After an error ``mim`` would print a traceback of itself, under which the line that says what is
    wrong disappears. Told to stop, as by Ctrl-C, it says "Aborted!" and ends with status 1.

    Args:
        status: Exit status; another one if a signal has told this process to end.
    """
    if _stopped_by is not None:
        status = 128 + _stopped_by
        _told.wait(timeout=GRACE)
    sys.stdout.flush()
    sys.stderr.flush()
    if status and _is_from_mim():
        os.kill(os.getppid(), signal.SIGINT)
    sys.exit(status)


def is_stopping() -> bool:
    """Whether a signal has told this process to end."""
    return _stopped_by is not None
