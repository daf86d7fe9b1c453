import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.registry import DefaultScope

CONFIGS = Path(__file__).parent / "configs"


@pytest.fixture(autouse=True)
def default_scope():
    """A tool that runs in the tests' process leaves the scope of its config behind: undo that."""
    with DefaultScope.overwrite_default_scope("mmengine"):
        yield


class Workspace:
    """A folder to run the tools in, with the small data set at ``data/deformed_shapes``."""

    def __init__(self, path: Path, root: Path, shapes: Path):
        self.path = path
        self.tools = root / "tools"
        (path / "data").mkdir()
        (path / "data" / "deformed_shapes").symlink_to(shapes)

    def __truediv__(self, name) -> Path:
        return self.path / name

    def run(self, tool: str, config: str, *args, processes: int = 0, fails=False, env=()) -> str:
        """Run ``tools/<tool>.py`` on a config of this folder; return what it printed.

        ``fails`` is what is expected, None if it may or may not.
        """
        command = [sys.executable]
        if processes:
            command += ["-m", "torch.distributed.run", "--standalone"]
            command += ["--nproc-per-node", str(processes)]
        command += [str(self.tools / f"{tool}.py")]
        if tool == "image_demo":
            image, *args = args
            command += [str(image)]
        command += [str(CONFIGS / config), *map(str, args)]
        if processes:
            command += ["--launcher", "pytorch"]
        paths = [str(CONFIGS), *filter(None, [os.environ.get("PYTHONPATH")])]
        settings = dict(
            PYTHONPATH=os.pathsep.join(paths),
            OMP_NUM_THREADS="1",  # the models are tiny, several threads would wait for each other
        )
        done = subprocess.run(
            command,
            cwd=self.path,
            env={**os.environ, **settings, **dict(env)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        assert fails is None or (done.returncode != 0) == fails, done.stdout[-5000:]
        return done.stdout

    def scalars(self, work_dir: str, key: str) -> dict:
        """Values of a logged scalar by iteration, over all runs in a work folder."""
        records = [
            json.loads(line)
            for file in sorted((self.path / work_dir).glob("*/vis_data/scalars.json"))
            for line in file.read_text().splitlines()
        ]
        return {record["step"]: record[key] for record in records if key in record}


@pytest.fixture(scope="session")
def make_workspace(tmp_path_factory, root, shapes):
    return lambda name: Workspace(tmp_path_factory.mktemp(name), root, shapes)


@pytest.fixture
def workspace(make_workspace):
    return make_workspace("workspace")
