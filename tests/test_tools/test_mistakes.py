"""What goes wrong in a run ends it with one line that says what to mend, and no traceback."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

from mmdcn.checkpoints import load_checkpoint_file
from mmdcn.engine import work_dir

pytest.importorskip("mmseg")
pytestmark = pytest.mark.slow

CONFIG = str(Path(__file__).parent / "configs" / "tiny_fcn.py")
IMAGE = "data/deformed_shapes/val/000001.jpg"
OTHER_MODEL = "is of another model than the config: 293 of 297 weights of the model are in the file"
# name: tool, arguments, exit status, what its line says, further settings
CASES = {
    "resume from weights": (
        "train",
        ["--resume=weights.pth", "--work-dir=w1"],
        1,
        "error: checkpoint weights.pth: a run cannot be resumed from it: it has no message_hub",
        {},
    ),
    "resume another model": (
        "train",
        ["--resume=other.pth", "--work-dir=w2"],
        1,
        f"error: checkpoint other.pth: it {OTHER_MODEL}; keys missing: decode_head.conv_seg.weight",
        {},
    ),
    "test another model": (
        "test",
        ["other.pth", "--work-dir=w3"],
        1,
        f"error: checkpoint other.pth: it {OTHER_MODEL}",
        {},
    ),
    "draw with another model": (
        "image_demo",
        ["other.pth"],
        1,
        f"error: checkpoint other.pth: it {OTHER_MODEL}",
        {},
    ),
    "fine-tune another model": (
        "train",
        ["--work-dir=w4", "--cfg-options", "load_from=other.pth", "train_cfg.max_iters=1"],
        0,
        "checkpoint other.pth: 293 of 297 weights of the model are in the file, the others start",
        {},
    ),
    "fine-tune nothing": (
        "train",
        ["--work-dir=w5", "--cfg-options", "load_from=nothing.pth"],
        1,
        "error: checkpoint nothing.pth: it is of another model than the config: 0 of 297 weights",
        {},
    ),
    "refused connection": (
        "test",
        ["http://127.0.0.1:9/file.pth", "--work-dir=w6"],
        1,
        "error: checkpoint http://127.0.0.1:9/file.pth: it cannot be downloaded: ",
        {},
    ),
    "empty image": (
        "image_demo",
        ["weights.pth"],
        1,
        "error: image empty.jpg: it cannot be read as an image",
        dict(image="empty.jpg"),
    ),
    "work folder is a file": (
        "train",
        ["--work-dir=weights.pth"],
        1,
        "error: work_dir weights.pth: a folder was expected, there is a file",
        {},
    ),
    "work folder cannot be made": (
        "test",
        ["weights.pth", "--work-dir=/proc/run"],
        1,
        "error: work_dir /proc/run: it cannot be made: ",
        {},
    ),
    "two runs": (
        "train",
        ["--work-dir=claimed"],
        1,
        "error: work_dir claimed: another run uses it (process ",
        {},
    ),
    "no space left": (
        "train",
        ["--work-dir=full"],
        1,
        "/full/iter_2.pth: File too large",
        dict(largest_file=10**6),
    ),
    "work folder vanishes": (
        "train",
        ["--work-dir=vanished"],
        1,
        ".json: No such file or directory",
        dict(env={"MMDCN_TEST_KILL": "vanish 1"}),
    ),
}


@pytest.fixture(scope="module")
def outcomes(make_workspace, root):
    """Exit status and log of each case, and the folder."""
    workspace = make_workspace("mistakes")
    tests = root / "tests"
    folders = [root, tests, tests / "test_tools" / "configs"]
    env = {"PYTHONPATH": os.pathsep.join(map(str, folders)), "OMP_NUM_THREADS": "1"}

    def run(cases):
        (workspace / "cases.json").write_text(json.dumps(cases))
        program = tests / "test_tools" / "tool_mistakes.py"
        done = subprocess.run(
            [sys.executable, str(program), str(root / "tools"), "cases.json"],
            cwd=workspace.path,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0
        return json.loads(done.stdout.splitlines()[-1])

    options = ["--cfg-options", "train_cfg.max_iters=2", "val_dataloader=None", "val_cfg=None"]
    options += ["val_evaluator=None"]
    ((status, log),) = run([dict(tool="train", args=[CONFIG, "--work-dir=first", *options])])
    assert status == 0, log
    content = load_checkpoint_file(workspace / "first" / "iter_2.pth")
    weights = content["state_dict"]
    torch.save(dict(state_dict=weights, meta=content["meta"]), workspace / "weights.pth")
    other = {key.replace("decode_head", "other_head"): value for key, value in weights.items()}
    torch.save(dict(content, state_dict=other), workspace / "other.pth")
    nothing = {f"x.{key}": value for key, value in weights.items()}
    torch.save(dict(content, state_dict=nothing), workspace / "nothing.pth")
    (workspace / "empty.jpg").write_bytes(b"")
    work_dir.claim(workspace / "claimed")
    cases = []
    for tool, args, _, _, further in CASES.values():
        image = [further.get("image", IMAGE)] if tool == "image_demo" else []
        cases.append(dict(further, tool=tool, args=[*image, CONFIG, *args]))
    return dict(zip(CASES, run(cases), strict=True)), workspace


@pytest.mark.parametrize("name", CASES)
def test_mistake(name, outcomes):
    status, log = outcomes[0][name]
    _, _, expected, message, _ = CASES[name]
    assert status == expected, log
    assert "Traceback" not in log
    line = next((line for line in log.splitlines() if message in line), None)
    assert line is not None, log
    if expected:
        assert line == log.splitlines()[-1] and line.startswith("error: ")


def test_a_full_disk_leaves_no_part_of_a_checkpoint(outcomes):
    names = [path.name for path in (outcomes[1] / "full").iterdir()]
    assert not [name for name in names if ".pth" in name], names


@contextmanager
def start_mim(workspace, *options):
    """A process group of its own, of which nothing is left in the end."""
    command = [sys.executable, "-m", "mim", "train", "mmdcn", CONFIG, "--cfg-options", *options]
    paths = [str(Path(CONFIG).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        command,
        cwd=workspace.path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_mim_adds_no_traceback(workspace):
    pytest.importorskip("mim")
    with start_mim(workspace, "default_scope=mmpose") as process:
        log = process.communicate(timeout=300)[0]
    assert process.returncode == 1
    assert "error: default_scope: expected mmdet or mmseg" in log
    assert "Traceback" not in log and log.splitlines()[-1] == "Aborted!"


@pytest.mark.parametrize("receiver", ["all", "mim"])
def test_ctrl_c_and_mim(workspace, receiver):
    """On a terminal Ctrl-C reaches all processes; ``kill`` reaches only one."""
    pytest.importorskip("mim")
    options = ["train_cfg.max_iters=100000", "train_dataloader.num_workers=2"]
    with start_mim(workspace, *options) as process:
        log = ""
        while "Iter(train) [     3/" not in log:
            log += process.stdout.readline()
            assert process.poll() is None, log
        if receiver == "all":
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.terminate()
        log += process.communicate(timeout=30)[0]
    assert "stopped: go on from the last checkpoint in work_dirs/tiny_fcn with --resume" in log
    assert "Traceback" not in log
    end = time.monotonic() + 10
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(process.pid, 0)
            time.sleep(0.1)
