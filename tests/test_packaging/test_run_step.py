"""requirements/run_step.py: signs of life, reasons of failures, and nothing left running."""

import importlib.util
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

PIP_BUILD = """\
Building wheels for collected packages: onedl-mmcv
  error: subprocess-exited-with-error

  × Building wheel for onedl-mmcv (pyproject.toml) did not run successfully.
  │ exit code: 1
  ╰─> [203 lines of output]
      running build_ext
      FAILED: build/ops/border_align.o
      In file included from ./common/box.hpp:3,
      ./common/box.hpp:10:10: fatal error: gsl/span: No such file or directory
         10 | #include <gsl/span>
      Traceback (most recent call last):
        File "setup.py", line 3, in <module>
      RuntimeError: Error compiling objects for extension
      [end of output]

  note: This error originates from a subprocess, and is likely not a problem with pip.
  ERROR: Failed building wheel for onedl-mmcv
ERROR: Failed to build installable wheels for some pyproject.toml based projects (onedl-mmcv)
"""
REASONS = {
    PIP_BUILD: "./common/box.hpp:10:10: fatal error: gsl/span: No such file or directory",
    "a.o\nc++: fatal error: Killed signal terminated program cc1plus\nninja: stopped": (
        "c++: fatal error: Killed signal terminated program cc1plus"
    ),
    "\x1b[31mERROR: Could not find a version that satisfies torch==9\x1b[0m\n"
    "\x1b[31mERROR: No matching distribution found for torch==9\x1b[0m": (
        "ERROR: Could not find a version that satisfies torch==9"
    ),
    "Collecting a\nERROR: Could not install packages due to an OSError: [Errno 28] No space left "
    "on device\n": "ERROR: Could not install packages due to an OSError: [Errno 28] No space left "
    "on device",
    "ok\n      error: the build needs torch\n      error: command '/usr/bin/c++' failed": (
        "error: the build needs torch"
    ),
    "Traceback:\n  File x\nModuleNotFoundError: No module named 'torch'\n": (
        "ModuleNotFoundError: No module named 'torch'"
    ),
    "src/a.cpp:3:5: error: expected ';'\nRuntimeError: Error compiling objects for extension": (
        "src/a.cpp:3:5: error: expected ';'"
    ),
    "a\nlast words\n\n": "last words",
    "": "it says nothing",
}


@pytest.fixture(scope="module")
def script(root):
    return root / "requirements" / "run_step.py"


@pytest.fixture(scope="module")
def module(script):
    spec = importlib.util.spec_from_file_location("run_step", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command(script, log, program, *interpreter):
    return [sys.executable, *interpreter, str(script), str(log), sys.executable, "-c", program]


@pytest.mark.parametrize("log", REASONS, ids=lambda log: log[:20].split("\n")[0] or "empty")
def test_the_reason_is_found(module, log):
    assert module.reason(log) == REASONS[log]


def test_success_is_silent_and_in_the_log(script, tmp_path):
    log = tmp_path / "logs" / "a.log"
    program = "import sys; print('out'); print('err', file=sys.stderr)"
    done = subprocess.run(command(script, log, program), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(log.read_text().split()) == ["err", "out"]


@pytest.mark.parametrize(
    "end, status", [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137)], ids=["exit", "signal"]
)
def test_failure_shows_the_end_of_the_log_and_the_reason_last(script, tmp_path, end, status):
    program = "import os, sys\nfor i in range(300): print('line', i)\n"
    program += f"print('NameError: x', flush=True)\nprint('so it goes', flush=True)\n{end}"
    log = tmp_path / "a.log"
    done = subprocess.run(command(script, log, program), capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert done.returncode == status
    assert len(lines) < 20 and "so it goes" in lines
    assert lines[-2].endswith(f"{log} has all 302 lines.")
    assert lines[-1] == "error: NameError: x"


def test_a_command_that_is_not_there(script, tmp_path):
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "log"), "/nowhere/pip"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == "error: /nowhere/pip: No such file or directory\n"


def fast(script, tmp_path):
    """The script with signs of life every 0.3 seconds."""
    slow, quick = "ON_TERMINAL, ELSEWHERE = 10, 30", "ON_TERMINAL = ELSEWHERE = 0.3"
    text = script.read_text()
    assert slow in text
    (tmp_path / "fast.py").write_text(text.replace(slow, quick))
    return tmp_path / "fast.py"


SLOW = "import time; print('Collecting torch', flush=True); time.sleep(1.5)"


def test_signs_of_life_are_plain_lines_without_a_terminal(script, tmp_path):
    words = command(fast(script, tmp_path), tmp_path / "log", SLOW)
    out = subprocess.run(words, capture_output=True, text=True).stdout
    assert "\r" not in out and "\x1b" not in out
    lines = out.splitlines()
    assert 2 <= len(lines) <= 6
    assert all(line.startswith("   … ") for line in lines)
    assert lines[-1].endswith(" s  Collecting torch")  # the first may come before any output


def test_signs_of_life_stay_in_one_line_of_a_terminal(script, tmp_path):
    words = command(fast(script, tmp_path), tmp_path / "log", SLOW)
    main, side = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "24"}
    with subprocess.Popen(words, stdout=side, stderr=side, env=environment) as process:
        os.close(side)
        out = b""
        try:
            while select.select([main], [], [], 30)[0] and (got := os.read(main, 1000)):
                out += got
        except OSError:  # the other side is closed
            pass
    os.close(main)
    assert process.returncode == 0 and b"\n" not in out
    pieces = out.decode().split("\r\x1b[K")
    assert pieces[0] == pieces[-1] == ""  # the line is left as it was
    assert len(pieces) > 3 and all(p.startswith("   … ") for p in pieces[1:-1])
    assert max(map(len, pieces)) == 23


# A command with a child, both of which do not listen; it tells their process ids.
STUBBORN = """
import os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if {ignore}: signal.signal(signal.SIGINT, signal.SIG_IGN)
child = os.fork()
if child: Path({ready!r}).write_text(f"{{os.getpid()}} {{child}}")
time.sleep(100)
"""


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return result


def start_stubborn(script, tmp_path, ignore):
    ready = tmp_path / "ready"
    program = STUBBORN.format(ready=str(ready), ignore=ignore)
    process = subprocess.Popen(
        command(script, tmp_path / "log", program),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert wait_until(lambda: ready.exists() and len(ready.read_text().split()) == 2)
    return process, [int(pid) for pid in ready.read_text().split()]


@pytest.mark.parametrize(
    "number, ignore",
    [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGINT, True)],
    ids=["SIGINT", "SIGTERM, unheard", "SIGINT, unheard"],
)
def test_a_signal_ends_all_processes(script, tmp_path, number, ignore):
    process, pids = start_stubborn(script, tmp_path, ignore)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert (out, err) == ("", "\nstopped: the same command does this step again\n")
    assert wait_until(lambda: not any(map(is_running, pids)))


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to do it")
def test_a_kill_takes_the_command_along(script, tmp_path):
    process, (pid, child) = start_stubborn(script, tmp_path, False)
    process.kill()
    process.communicate(timeout=30)
    assert wait_until(lambda: not is_running(pid))
    os.kill(child, signal.SIGKILL)
