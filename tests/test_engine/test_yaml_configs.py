"""YAML configs are read as plain data."""

import subprocess
import sys
import textwrap

PROGRAM = """
from mmengine.config import Config
from mmdcn.engine import launch, yaml_configs
yaml_configs.install()
for name in ("bad", "below"):
    try:
        launch.read_config(f"{name}.yaml")
    except launch.UsageError as error:
        print(error)
cfg = Config(dict(a=(1, (2, 3)), b=[4.5, None, True], c=dict(d="text")))
cfg.dump("good.yaml")
assert "python/tuple" in open("good.yaml").read()
assert launch.read_config("good.yaml").to_dict() == cfg.to_dict()
"""


def test_tags_that_run_code_are_refused(tmp_path):
    (tmp_path / "bad.yaml").write_text("a: !!python/object/apply:os.mkdir [made_by_config]\n")
    (tmp_path / "below.yaml").write_text("_base_: bad.yaml\n")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for line, name in zip(done.stdout.splitlines(), ("bad", "below"), strict=True):
        assert line.startswith(f"config {name}.yaml: YAML of plain values was expected: ")
        assert "python/object/apply:os.mkdir" in line
    assert not (tmp_path / "made_by_config").exists()
