"""Kills the process, as ``kill -9`` does, or worse, at the place that MMDCN_TEST_KILL names."""

import os
import shutil
import signal

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmdcn.engine import checkpoint


def kill(*args) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@HOOKS.register_module()
class KillHook(Hook):
    """``step N``: after iteration N. ``write N``: while the checkpoint of iteration N is written,
    with its data on the disk and the file not in its place yet. ``vanish N``: after iteration N
    the work folder is gone."""

    priority = "VERY_HIGH"

    def __init__(self):
        place, number = os.environ.get("MMDCN_TEST_KILL", "never 0").split()
        self.place, self.number = place, int(number)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == self.number:
            if self.place == "step":
                kill()
            elif self.place == "write":
                checkpoint.os.fsync = kill
            elif self.place == "vanish":
                shutil.rmtree(runner.work_dir)
