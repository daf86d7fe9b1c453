"""Training that is ended at random moments loses nothing and leaves nothing behind."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("mmseg")
pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_runs_that_are_ended_at_random_moments(workspace, root):
    """kill -9, SIGTERM and Ctrl-C: no process is left, checkpoints are whole, and in the end the
    weights are bitwise those of a run that nothing has interrupted."""
    tests = root / "tests"
    folders = [root, tests, tests / "test_tools" / "configs"]
    done = subprocess.run(
        [
            sys.executable,
            str(tests / "test_tools" / "interrupted_runs.py"),
            str(root / "tools" / "train.py"),
            str(tests / "test_tools" / "configs" / "tiny_fcn.py"),
        ],
        cwd=workspace.path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
            "OMP_NUM_THREADS": "1",
        },
        stdout=subprocess.PIPE,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["wrong"] == []
    assert result["ended"] == 26 and result["finished"] >= 1
