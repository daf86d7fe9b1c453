"""Several processes of one tool on the CPU of this machine, which share each batch.

The threads of one process wait for each other in every operator, and Python runs in one of them.
Processes wait once in an iteration, when they exchange their gradients.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import torch
from mmengine.config import Config

from mmdcn.engine import processes
from mmdcn.engine.errors import UsageError

PARENT = "MMDCN_CPU_GROUP"  # variable with the first process's number
PATIENCE = 5  # seconds from a lost connection to the end of a process


def share_batches(cfg: Config, number: int) -> None:
    """Let each of `number` processes take an equal part of a batch.

    Raises:
        UsageError: The batch cannot be divided, or something else starts the processes.
    """
    if cfg.launcher != "none":
        raise UsageError(f"--cpu-processes: not together with --launcher {cfg.launcher}")
    batch = cfg.train_dataloader.batch_size
    if number < 1 or batch % number:
        raise UsageError(
            f"--cpu-processes: a divisor of train_dataloader.batch_size={batch} was expected, "
            f"got {number}"
        )
    cfg.train_dataloader.batch_size = batch // number
    cfg.launcher = "pytorch"


@contextlib.contextmanager
def running(number: int) -> Iterator[None]:
    """Run the command of this process in others, too, as torchrun would, while the body runs.

    This process is the first of `number`. Where the others come to the same place, they only run
    the body. Ctrl-C does not reach them, they end with this one, and what they print to the
    standard output is lost.

    Raises:
        UsageError: Another process has ended with an error, or was killed.
    """
    if "RANK" in os.environ:
        processes.die_with_parent()
        if os.environ.get(PARENT, str(os.getppid())) != str(os.getppid()):
            raise UsageError("--cpu-processes: the first process has ended")
        yield
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(number))
    threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, torch.get_num_threads() // number))
    torch.set_num_threads(threads)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
    own = {"PYTHONWARNINGS": "ignore", PARENT: str(os.getpid())}
    others = [
        subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            env=os.environ | own | dict(RANK=rank, LOCAL_RANK=rank),
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        for rank in map(str, range(1, number))
    ]
    os.environ |= dict(RANK="0", LOCAL_RANK="0")
    try:
        yield
    except BaseException as error:
        # Gloo has no type of its own for a lost connection.
        failed = _failed(others) if "gloo" in str(error) else None
        for process in others:
            process.kill()
        if failed is None:
            raise
        raise UsageError(
            f"--cpu-processes: process {failed.pid} has ended with status {failed.returncode}"
        ) from error
    for process in others:
        process.wait()


def _failed(others: list[subprocess.Popen]) -> subprocess.Popen | None:
    """One of them that has ended in another way than in order; its connection is lost first."""
    deadline = time.monotonic() + PATIENCE
    while not any(process.poll() is not None for process in others):
        if time.monotonic() > deadline:
            return None
        time.sleep(0.1)
    return next((process for process in others if process.returncode), None)
