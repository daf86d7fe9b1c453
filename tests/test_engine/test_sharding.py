"""Training in shards equals training in one piece."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_two_processes_train_like_one(tmp_path):
    # The worker also trains alone, on the data of both processes: the oracle. There is clipping,
    # decay of matrices but not of vectors, rates by layer, recomputation, and a restart.
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *(str(Path(__file__).parent / "sharding_worker.py"), str(tmp_path)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    report = json.loads(done.stdout.strip().splitlines()[-1])
    assert report["units"] == 1 + 6  # the model, and each block
    assert 0.5 <= report["share"] < 0.51
    assert max(report["norms"]) < 1e-9
    assert report["saved"] < 1e-9 and report["resumed"] < 1e-9
