"""The Makefile with stand-ins for the programs that it calls: what `make demo` does when."""

import os
import shutil
import signal
import subprocess
import time

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
INDEX = "https://download.pytorch.org/whl/cpu"
# Notes how it was called. Training writes a checkpoint, or does what MIM says instead.
MIM = """#!/bin/bash
echo "$@" >> "$CALLS"
while [ $# -gt 0 ] && [ "$1" != --work-dir ]; do shift; done
if [ -n "$MIM" ]; then eval "$MIM"; fi
mkdir -p "$2" && echo "$2/epoch_$RANDOM$RANDOM.pth" > "$2/last_checkpoint"
"""


def environment():
    """That of a shell, also where make runs the tests."""
    inherited = ("MAKE", "MFLAGS", "FAMILY", "BACKBONE", "TORCH")
    return {k: v for k, v in os.environ.items() if not k.startswith(inherited)}


class Demo:
    def __init__(self, root, folder):
        self.root, self.folder, self.work = root, folder, folder / "work"
        venv = folder / "venv"
        (venv / "bin").mkdir(parents=True)
        (venv / "stamps").mkdir()
        for name in ("venv", "torch", "openmmlab", "mmdcn", "dev", "explore", "browser"):
            (venv / "stamps" / name).touch()
        (folder / "data").mkdir()
        (folder / "data" / "manifest.json").touch()
        for name, text in (("mim", MIM), ("python", '#!/bin/bash\necho "$@" >> "$CALLS"\n')):
            (venv / "bin" / name).write_text(text)
            (venv / "bin" / name).chmod(0o755)
        self.command = ["make", "demo", f"VENV={venv}", f"DEMO_DATA={folder / 'data'}"]
        self.command += [f"DEMO_WORK={self.work}"]

    def start(self, mim=""):
        (self.folder / "calls").write_text("")
        return subprocess.Popen(
            self.command,
            cwd=self.root,
            env={**environment(), "MIM": mim, "CALLS": str(self.folder / "calls")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, mim=""):
        with self.start(mim) as process:
            return process.communicate(timeout=60)[0], process.returncode

    def calls(self):
        """First words of what was called."""
        lines = (self.folder / "calls").read_text().splitlines()
        return [" ".join(line.split()[:1]) for line in lines]


@pytest.fixture
def demo(root, tmp_path):
    return Demo(root, tmp_path)


DRAWING = "tools/analysis_tools/draw_results.py"


def test_a_training_evaluates_itself_and_is_not_repeated(demo):
    out, status = demo.run()
    assert status == 0, out
    assert demo.calls() == ["train", DRAWING] and (demo.work / "finished").exists()
    assert "== Training" in out and "== Evaluating" not in out
    out, status = demo.run()
    assert status == 0, out
    assert demo.calls() == ["test", DRAWING]
    assert "has finished before" in out and "== Evaluating" in out


def test_a_training_that_was_stopped_after_its_last_epoch_is_evaluated(demo):
    demo.work.mkdir()
    (demo.work / "last_checkpoint").write_text("epoch_10.pth")
    out, status = demo.run(mim="exit 0")
    assert status == 0, out
    assert demo.calls() == ["train", "test", DRAWING]


def test_a_training_that_fails_is_not_finished(demo):
    out, status = demo.run(mim="echo no space; exit 1")
    assert status != 0 and demo.calls() == ["train"]
    assert not (demo.work / "finished").exists() and "stopped" not in out


@pytest.mark.parametrize("end", ["exit 1", "exit 0"])
def test_ctrl_c_says_how_to_go_on(demo, end):
    # mim says "Aborted!" and ends with status 1; a training that was just finishing with 0
    process = demo.start(mim=f"trap '{end}' INT; sleep 60 > /dev/null 2>&1 & wait")
    limit = time.monotonic() + 30
    while not demo.calls() and time.monotonic() < limit:
        time.sleep(0.05)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    out = process.communicate(timeout=60)[0]
    assert process.returncode != 0 and demo.calls() == ["train"]
    assert not (demo.work / "finished").exists()
    said = [line for line in out.splitlines() if line and not line.startswith("make:")]
    assert said[-1] == "stopped: make demo goes on from the last checkpoint, if there is one"


def test_the_explorer_needs_the_checkpoint_of_the_demo(demo):
    demo.command[1] = "explore"
    out, status = demo.run()
    assert status != 0 and "error: the demo has no checkpoint yet; first: make demo" in out
    demo.work.mkdir()
    (demo.work / "last_checkpoint").write_text("epoch_8.pth")
    out, status = demo.run()
    assert status == 0, out
    (call,) = (demo.folder / "calls").read_text().splitlines()
    assert call.startswith("tools/explore.py configs/demo/mask-rcnn_")
    assert call.endswith(f"_demo.py epoch_8.pth {demo.folder / 'data'}/val")


def test_the_tests_of_the_page_need_a_chromium(demo):
    demo.command[1] = "test-browser"
    demo.command.append("CHROMIUM=")
    out, status = demo.run()
    assert status != 0 and "error: no Chromium found" in out and not demo.calls()
    demo.command[-1] = "CHROMIUM=/opt/chrome"
    out, status = demo.run()
    assert status == 0, out
    assert demo.calls() == ["-m"]


def make(root, *words):
    done = subprocess.run(
        ["make", *words], cwd=root, capture_output=True, text=True, env=environment()
    )
    return done.returncode, done.stdout + done.stderr


def test_the_index_of_cpu_builds_is_used_when_asked_for_only(root, tmp_path):
    words = ["-n", "env", f"VENV={tmp_path / 'venv'}"]
    status, out = make(root, *words)
    assert status == 0 and INDEX not in out
    status, out = make(root, *words, "TORCH=cpu")
    (line,) = (line for line in out.splitlines() if INDEX in line)
    assert status == 0 and "--no-deps --index-url" in line
    # what is to be installed from it is torch alone
    assert line.rpartition(INDEX)[2] == ' "$(grep ^torch== requirements/build.txt)"'


def test_wrong_and_late_choices_of_pytorch_are_errors(root, tmp_path):
    status, out = make(root, "-n", "env", "TORCH=cuda")
    assert status != 0 and "cpu is the only choice" in out
    status, out = make(root, "-n", "env", "FAMILY=classical")
    assert status != 0 and "FAMILY=classical: forks, classic or classification is expected" in out
    torch = tmp_path / "venv" / "lib" / "python3.12" / "site-packages" / "torch"
    torch.mkdir(parents=True)
    words = ["-n", "env", f"VENV={tmp_path / 'venv'}", "TORCH=cpu"]
    for version, fails in (("None", False), ("'13.0'", True)):
        (torch / "version.py").write_text(f"cuda: Optional[str] = {version}\n")
        status, out = make(root, *words)
        assert (status != 0) == fails and ("PyTorch for CUDA already" in out) == fails
