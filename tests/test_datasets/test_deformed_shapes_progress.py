"""tools/dataset_converters/deformed_shapes.py: what it says while it writes, and at Ctrl-C."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("cv2")
pytest.importorskip("pycocotools")

FOLDER = Path(__file__).parents[2] / "tools/dataset_converters"
sys.path.insert(0, str(FOLDER))  # as Python does for a script
import deformed_shapes_progress  # noqa: E402
from deformed_shapes_progress import Progress  # noqa: E402

COMMAND = [sys.executable, str(FOLDER / "deformed_shapes.py"), "--size=48", "--workers=2"]


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by a second whenever it is asked."""
    seconds = iter(range(1000))
    monkeypatch.setattr(deformed_shapes_progress.time, "monotonic", lambda: float(next(seconds)))


def test_plain_lines_every_ten_seconds_without_a_terminal(clock, capsys):
    progress = Progress("train", "images", 35)
    for done in range(1, 36):
        progress.update(done)
    assert capsys.readouterr().err.splitlines() == [
        "train: 10/35 images, 25 s left",
        "train: 20/35 images, 15 s left",
        "train: 30/35 images, 5 s left",
        "train: 35/35 images in 35 s",
    ]


def test_one_line_on_a_terminal(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = Progress("val", "images", 3)
    for done in range(1, 4):
        progress.update(done)
    start = "\r\x1b[K"
    assert capsys.readouterr().err == (
        f"{start}val: 1/3 images, 2 s left{start}val: 2/3 images, 1 s left"
        f"{start}val: 3/3 images in 3 s\n"
    )


def test_pipes_get_no_control_characters(tmp_path):
    command = [*COMMAND, f"--out={tmp_path / 'shapes'}", "--train=3", "--val=3"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.rpartition(" in ")[0] for line in done.stderr.splitlines()]
    assert lines == ["train: 3/3 images", "val: 3/3 images"]
    assert "\r" not in done.stdout and "\x1b" not in done.stdout


def test_terminals_end_with_whole_lines(tmp_path):
    main, side = pty.openpty()
    command = [*COMMAND, f"--out={tmp_path / 'shapes'}", "--train=3", "--val=3"]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=side, check=True)
    os.close(side)
    shown = os.read(main, 10000).decode().replace("\r\n", "\n")
    os.close(main)
    assert shown.startswith("\r\x1b[Ktrain: ") and shown.endswith(" s\n")
    assert [text.rpartition("\x1b[K")[2].split(" in ")[0] for text in shown.split("\n")] == [
        "train: 3/3 images",
        "val: 3/3 images",
        "",
    ]


@pytest.mark.parametrize("when", ["start", "middle"])
def test_ctrl_c_says_how_to_go_on_and_leaves_nothing(tmp_path, when):
    command = [*COMMAND, f"--out={tmp_path / 'shapes'}", "--train=5000"]
    partial = tmp_path / ".shapes.partial"
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    images = "new/train/*.jpg" if when == "middle" else "new"
    end = time.monotonic() + 60
    while not list(partial.glob(images)):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert out == "" and "Traceback" not in err
    assert err.endswith("\nstopped: nothing is kept; the same command starts anew\n")
    assert not list(tmp_path.iterdir())
