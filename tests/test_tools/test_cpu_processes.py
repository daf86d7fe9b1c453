"""How training in several processes on the CPU ends, ``--cpu-processes``."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("mmseg")
if torch.cuda.is_available():
    pytest.skip("it is for machines without a CUDA device", allow_module_level=True)
pytestmark = pytest.mark.slow
CONFIG = "tiny_fcn.py"
TWO = ("--cpu-processes", "2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cpu-processes=3"], "a divisor of train_dataloader.batch_size=4 was expected, got 3"),
        ([*TWO, "--launcher=pytorch"], "--cpu-processes: not together with --launcher pytorch"),
        ([*TWO, "--resume=broken.pth"], "checkpoint broken.pth: "),
        ([*TWO, "--cfg-options", "train_dataloader.dataset.data_root=no/"], "no folder 'no/' in"),
    ],
)
def test_mistakes_get_one_line(workspace, options, message):
    (workspace / "broken.pth").write_bytes(b"PK")
    log = workspace.run("train", CONFIG, *options, fails=True)
    assert log.count("error: ") == 1 and message in log
    assert "Traceback" not in log


class Run:
    """A long training in two processes."""

    def __init__(self, workspace, root):
        configs = Path(__file__).parent / "configs"
        command = [sys.executable, root / "tools" / "train.py", configs / CONFIG, *TWO]
        command += ["--cfg-options", "train_cfg.max_iters=100000", "train_cfg.val_interval=100000"]
        self.log = workspace / "log.txt"
        with open(self.log, "w") as file:
            self.process = subprocess.Popen(
                command,
                cwd=workspace.path,
                env={**os.environ, "PYTHONPATH": str(configs), "OMP_NUM_THREADS": "1"},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.wait_until(lambda: "Iter(train)" in self.log.read_text())

    def wait_until(self, condition):
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def others(self) -> list[int]:
        """Processes that this test's process has below the run's first one."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "stat").read_text().rpartition(")")[2].split()
                command = (folder / "cmdline").read_text()
            except OSError:
                continue
            if int(words[1]) == self.process.pid and "train.py" in command:
                found.append(int(folder.name))
        return found


@pytest.fixture
def run(workspace, root):
    if not Path("/proc/self/stat").exists():
        pytest.skip("processes are found in /proc")
    run = Run(workspace, root)
    yield run
    run.process.kill()
    run.process.wait()


def is_gone(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_all_processes_end_with_the_first(run, number):
    (other,) = run.others()
    run.process.send_signal(number)
    status = run.process.wait(20)
    run.wait_until(lambda: is_gone(other))
    log = run.log.read_text()
    if number != signal.SIGKILL:
        assert status == 128 + number
        assert log.count("stopped: ") == 1
    assert "Traceback" not in log


def test_first_process_ends_with_another(run):
    (other,) = run.others()
    os.kill(other, signal.SIGKILL)
    assert run.process.wait(60) == 1
    assert f"process {other} has ended with status -9" in run.log.read_text()
    assert "Traceback" not in run.log.read_text()
