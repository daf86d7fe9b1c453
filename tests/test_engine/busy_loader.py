"""Keeps two workers of a data loader busy until somebody ends this program.

Argument: how the workers start, ``fork`` or ``spawn``. Prints the ids of the
workers when these wait for room in their queue.
"""

import importlib.util
import sys
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

# The module alone, as its package takes a while to import.
FILE = Path(__file__).parents[2] / "mmdcn" / "engine" / "processes.py"
spec = importlib.util.spec_from_file_location("processes", FILE)
processes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(processes)

processes.end_children_with_parent()


class Images(Dataset):
    def __len__(self):
        return 10**6

    def __getitem__(self, index):
        # Larger than a pipe, and sent through it: a list of numbers is not put into shared memory.
        return list(range(100_000))


if __name__ == "__main__":
    torch.set_num_threads(1)
    processes.stop_on_signals()
    loader = DataLoader(
        Images(),
        batch_size=None,
        num_workers=2,
        persistent_workers=True,
        multiprocessing_context=sys.argv[1],
        prefetch_factor=4,
    )
    batches = iter(loader)
    next(batches)
    time.sleep(1)
    try:
        print(
            *(worker.pid for worker in batches._workers), flush=True
        )  # a signal may follow at once
        time.sleep(600)
    except KeyboardInterrupt:
        processes.leave(1)
