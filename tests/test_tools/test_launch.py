"""What the tools put into a config that does not say otherwise."""

import pytest
from mmengine.config import Config

pytest.importorskip("mmseg")

from mmdcn.engine import OptimWrapperConstructor, launch  # noqa: E402
from mmdcn.registry import OPTIM_WRAPPER_CONSTRUCTORS  # noqa: E402


@pytest.mark.parametrize("named", [None, "DefaultOptimWrapperConstructor"])
def test_constructor_of_the_optimizer(named, workspace, root, monkeypatch):
    configs = root / "tests" / "test_tools" / "configs"
    monkeypatch.chdir(workspace.path)
    monkeypatch.syspath_prepend(str(configs))
    cfg = Config.fromfile(configs / "tiny_fcn.py")
    cfg.work_dir, cfg.launcher = f"run_{named}", "none"
    cfg.experiment_name = f"test_constructor_{named}"
    if named:
        cfg.optim_wrapper.constructor = named
    runner = launch.build_runner(cfg, ("train",))
    chosen = runner.cfg.optim_wrapper.constructor
    assert chosen == (named or "mmdcn.OptimWrapperConstructor")
    if not named:
        assert OPTIM_WRAPPER_CONSTRUCTORS.get(chosen) is OptimWrapperConstructor
