"""The folder of a run: one training run at a time, whatever happens to the others."""

import os
import signal

import pytest

from mmdcn.engine import work_dir
from mmdcn.engine.errors import UsageError


def in_a_child(function):
    """What a process of its own gets from a function, as text; it ends when it is told."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, str(function()).encode())
            signal.pause()
        except BaseException as error:
            os.write(writer, str(error).encode())
            signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    text = os.read(reader, 2000).decode()
    os.close(reader)
    return pid, text


def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_folder_is_held_until_its_process_ends(tmp_path):
    first, text = in_a_child(lambda: work_dir.claim(tmp_path / "run"))
    assert text == "None"
    second, text = in_a_child(lambda: work_dir.claim(tmp_path / "run"))
    end(second)
    assert f"another run uses it (process {first} on " in text
    end(first)  # kill -9
    third, text = in_a_child(lambda: work_dir.claim(tmp_path / "run"))
    end(third)
    assert text == "None"


def test_what_a_run_forks_does_not_hold_its_folder(tmp_path):
    def run():
        work_dir.claim(tmp_path)
        worker, _ = in_a_child(os.getpid)
        return worker

    first, worker = in_a_child(run)
    end(first)
    second, text = in_a_child(lambda: work_dir.claim(tmp_path))
    end(second)
    os.kill(int(worker), signal.SIGKILL)
    assert text == "None"


def test_a_file_of_that_name(tmp_path):
    (tmp_path / "run").write_text("")
    for folder in ("run", "run/below"):
        with pytest.raises(UsageError, match=r"work_dir .*run.*: a folder was expected"):
            work_dir.claim(tmp_path / folder)


def test_a_place_without_room(tmp_path):
    with pytest.raises(UsageError, match="work_dir /proc/run: it cannot be made: "):
        work_dir.claim("/proc/run")
    (tmp_path / ".lock").mkdir()
    with pytest.raises(UsageError, match="it cannot be written to: "):
        work_dir.claim(tmp_path)
