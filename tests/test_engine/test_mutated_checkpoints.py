"""A damaged or foreign checkpoint is refused in one line, or the run goes on as it should."""

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_mutated_checkpoints(root, tmp_path):
    tests = root / "tests"
    done = subprocess.run(
        [sys.executable, str(tests / "test_engine" / "mutated_checkpoints.py")],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, [root, tests])),
            "OMP_NUM_THREADS": "1",
        },
        stdout=subprocess.PIPE,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0
    results = json.loads(done.stdout.splitlines()[-1])
    assert len(results) == 100
    for result in results:
        if result["status"] == 0:
            assert result["equal"], result["what"]
        else:
            assert result["status"] == 1, result
            lines = [line for line in result["log"].splitlines() if line.startswith("error: ")]
            assert len(lines) == 1 and result["log"].splitlines()[-1] == lines[0], result
            assert "Traceback" not in result["log"], result
    assert sum(result["status"] == 1 for result in results) > 80
