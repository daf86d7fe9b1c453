"""No process of a run outlives the one that started it, and the ends of runs are in order."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmdcn.engine import processes

PROGRAM = Path(__file__).with_name("busy_loader.py")


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def survivors(pids, seconds):
    """Those of some processes that still run after this time."""
    end = time.monotonic() + seconds
    while (alive := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < end:
        time.sleep(0.1)
    return alive


def end_busy_loader(start, number):
    """Start it, send it a signal; its output and what is left of its workers after 10 s."""
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), start],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2 and all(map(is_alive, pids))
        process.send_signal(number)
        left = survivors(pids, 10)
        for pid in left:  # before the pipes are read, which they hold open
            os.kill(pid, signal.SIGKILL)
        status = process.wait(timeout=20)
        return status, process.stderr.read(), left


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends the workers")
@pytest.mark.parametrize(
    ("start", "number"),
    [
        ("fork", signal.SIGKILL),
        ("fork", signal.SIGTERM),
        ("fork", signal.SIGINT),
        ("spawn", signal.SIGKILL),
    ],
)
def test_workers_end_with_their_parent(start, number):
    status, errors, left = end_busy_loader(start, number)
    assert left == []
    if number == signal.SIGKILL:
        assert status == -signal.SIGKILL
    else:
        assert status == 128 + number
        assert errors.strip() == "stopped"


def run(program):
    """Run a program after the module's own source, which needs nothing else of the package."""
    program = Path(processes.__file__).read_text() + program
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50
    )


@pytest.mark.parametrize(
    "hang, status",
    [
        ("time.sleep(60)", 128 + signal.SIGTERM),
        # C code that keeps all threads of Python from running
        ("time.sleep(0.5); ctypes.PyDLL(None).sleep(60)", -signal.SIGALRM),
    ],
)
def test_an_end_that_hangs_is_cut_short(hang, status):
    done = run(f"""
import time
GRACE = 1
stop_on_signals()
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
except KeyboardInterrupt:
    {hang}
""")
    assert done.returncode == status and done.stderr.strip() == "stopped"


def test_a_second_signal_ends_at_once():
    done = run("""
import time
stop_on_signals()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(3)
    print("still here")
""")
    assert done.returncode == 128 + signal.SIGINT and not done.stdout


@pytest.mark.parametrize("guarded", [True, False])
def test_a_parent_that_stops_in_the_middle_of_a_transfer(guarded):
    """What a data loader does with a tensor: its worker serves a file descriptor in a thread."""
    done = run(f"""
import time
from multiprocessing.resource_sharer import DupFd
def serve(queue):
    shared = DupFd(0)
    queue.put(multiprocessing.resource_sharer._resource_sharer._address)
    time.sleep(2)
if {guarded}:
    end_children_with_parent()
context = multiprocessing.get_context("fork")
queue = context.Queue()
child = context.Process(target=serve, args=(queue,))
child.start()
socket.socket(socket.AF_UNIX).connect(queue.get())  # closed before a word is said
child.join()
""")
    assert done.returncode == 0
    assert ("Traceback" in done.stderr) == (not guarded), done.stderr


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("python\0/usr/bin/mim\0train\0mmdcn\0config.py\0", True),
        ("python\0-m\0mim\0test\0mmdcn\0config.py\0", True),
        ("python\0-m\0mim\0gridsearch\0mmdcn\0config.py\0", False),
        ("python\0train.py\0mim.py\0", False),
        ("bash\0", False),
        ("mim\0", False),
    ],
)
def test_mim_is_recognised(command, expected, monkeypatch):
    monkeypatch.setattr(Path, "read_bytes", lambda path: command.encode())
    assert processes._is_from_mim() == expected
