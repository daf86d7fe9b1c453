"""Ends training runs at random moments, goes on with them, and tells how they end.

Arguments: ``train.py``, a config. It runs in a folder with their data and prints JSON: counts, and
what went wrong.
"""

import importlib.util
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from forked import ForkedRun
from mmseg.utils import register_all_modules

import mmdcn.models  # noqa: F401 (so that the copies need not import it)
from mmdcn.checkpoints import load_checkpoint_file

# kill -9 at random moments; Ctrl-C and SIGTERM, after which a run has to end in order
SIGNALS = [signal.SIGKILL] * 20 + [signal.SIGTERM, signal.SIGINT] * 3
WORKERS = ["train_dataloader.num_workers=2", "train_dataloader.persistent_workers=True"]


def load_tool(path):
    spec = importlib.util.spec_from_file_location("train", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Runs:
    def __init__(self, tool, config):
        self.tool = load_tool(tool)
        self.config = config
        self.wrong = []

    def start(self, work_dir):
        sys.argv = ["train.py", self.config, "--work-dir", work_dir, "--resume", "--cfg-options"]
        sys.argv += WORKERS
        return ForkedRun(self.tool.main, f"{work_dir}.log")

    def check(self, condition, run, what):
        if not condition:
            self.wrong.append(f"{what}: {run.log.read_text()[-300:]}")

    def check_whole(self, run, work_dir):
        for path in Path(work_dir).glob("*.pth"):
            try:
                load_checkpoint_file(path)
            except Exception as error:
                self.check(False, run, str(error))

    def interrupt(self, run, number, seconds):
        """Whether a signal after some seconds has ended a run; it may have finished before."""
        if (status := run.wait(seconds)) is not None:
            self.check(status == 0, run, f"exit status {status}")
            return False
        told = time.monotonic()
        os.kill(run.pid, number)
        status = run.wait(10)
        self.check(not run.survivors(10), run, f"{number!r}: processes are left")
        log = run.log.read_text()
        if status == 0:  # it finished just before the signal
            return False
        if number == signal.SIGKILL:
            self.check(status == -number, run, f"{number!r}: exit status {status}")
        else:
            self.check(status == 128 + number, run, f"{number!r}: exit status {status}")
            self.check("stopped: " in log and "Traceback" not in log, run, f"{number!r}: its log")
            self.check(time.monotonic() - told < 10, run, f"{number!r}: it takes long")
        return True


def main():
    register_all_modules(init_default_scope=False)
    torch.set_num_threads(1)
    runs = Runs(*sys.argv[1:3])
    begin = time.monotonic()
    run = runs.start("whole")
    runs.check(run.wait(300) == 0, run, "the whole run fails")
    duration = time.monotonic() - begin
    reference = load_checkpoint_file("whole/iter_6.pth")["state_dict"]
    moments, folders, ended = random.Random(0), 0, 0
    pending = list(SIGNALS)
    while pending:
        work_dir = f"run{folders}"
        folders += 1
        while pending:
            run = runs.start(work_dir)
            if not runs.interrupt(run, pending[0], moments.uniform(0, duration)):
                break
            pending.pop(0)
            ended += 1
            runs.check_whole(run, work_dir)
        else:
            run = runs.start(work_dir)
            runs.check(run.wait(300) == 0, run, "the last run fails")
        runs.check_whole(run, work_dir)
        state = load_checkpoint_file(f"{work_dir}/iter_6.pth")["state_dict"]
        same = all(torch.equal(state[key], value) for key, value in reference.items())
        runs.check(same, run, f"{work_dir} ends differently")
    print(json.dumps(dict(ended=ended, finished=folders, seconds=duration, wrong=runs.wrong)))


if __name__ == "__main__":
    main()
