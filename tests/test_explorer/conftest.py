import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope


@pytest.fixture(autouse=True)
def default_scope():
    """Models that are built in the tests' process leave their scope behind: undo that."""
    with DefaultScope.overwrite_default_scope("mmengine"):
        yield


@pytest.fixture(scope="session")
def make_model(root):
    """Builds the model of a config of the tools' tests, with random offsets."""
    pytest.importorskip("mmdet")
    pytest.importorskip("mmseg")
    from mmdcn.engine import launch

    configs = root / "tests" / "test_tools" / "configs"
    sys.path.append(str(configs))  # for what the configs import

    def make(name):
        cfg = Config.fromfile(configs / f"{name}.py")
        torch.manual_seed(0)
        model = launch.build_model(cfg)
        for module in model.modules():
            if hasattr(module, "conv_offset"):
                torch.nn.init.normal_(module.conv_offset.weight, std=0.1)
        model.cfg = cfg
        model.dataset_meta = dict(classes=("star", "crescent", "fish", "more"))
        return model.eval()

    yield make
    sys.path.remove(str(configs))


@pytest.fixture(scope="session")
def images(shapes):
    return [str(path) for path in sorted((shapes / "val").glob("*.jpg"))]
