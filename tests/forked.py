"""Runs of a tool in copies of a process that has imported everything: many in little time."""

import os
import sys
import time
import traceback
from pathlib import Path

import matplotlib.pyplot  # noqa: F401 (here, so that the copies need not import it)
import torch
from mmengine.runner import runner

from mmdcn.engine import launch

runner.collect_env = dict  # which asks every compiler of the machine for its version
torch.optim.SGD([torch.zeros(1)])  # imports a lot at its first use


class ForkedRun:
    """A function, run as a tool in a process and a session of its own.

    Args:
        function: What to run.
        log: File for what it prints.
    """

    def __init__(self, function, log):
        self.log = Path(log)
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            self._run(function, writer)
        os.close(writer)
        os.read(reader, 1)  # it listens to signals now
        os.close(reader)

    def _run(self, function, ready):
        def begin():
            os.write(ready, b"r")
            function()

        status = 70
        try:
            os.setsid()
            output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            launch.run_tool(begin)
            status = 0
        except SystemExit as error:
            status = error.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def wait(self, seconds):
        """Its exit status, minus the signal that ended it; None if it still runs by then."""
        end = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                return None
            time.sleep(0.01)

    def survivors(self, seconds=0):
        """Processes of its session that still run after some seconds."""
        end = time.monotonic() + seconds
        while (alive := [p for p in Path("/proc").glob("[0-9]*") if self._owns(p)]) and (
            time.monotonic() < end
        ):
            time.sleep(0.05)
        return [int(path.name) for path in alive]

    def _owns(self, process):
        try:
            state, _, _, session = (process / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            return False
        return int(session) == self.pid and state != "Z"
