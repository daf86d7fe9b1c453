import logging
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def alone():
    """One thread, no messages of the exporter, and no scope that a model leaves behind."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with DefaultScope.overwrite_default_scope("mmengine"):
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def make_model():
    """Builds the model of a config of the tools' tests or of configs/, with changes."""
    from mmdcn.engine import launch

    configs = ROOT / "tests" / "test_tools" / "configs"
    sys.path.append(str(configs))  # for what the configs import

    def make(name, changes=None):
        file = configs / f"{name}.py"
        cfg = Config.fromfile(file if file.is_file() else ROOT / "configs" / f"{name}.py")
        cfg.merge_from_dict(changes or {})
        torch.manual_seed(0)
        model = launch.build_model(cfg)
        for key, parameter in model.named_parameters():
            if "conv_offset" in key or "offset_fc" in key or "mask_fc" in key:
                torch.nn.init.normal_(parameter, std=0.1)
            elif key.endswith(("rpn_cls.weight", "fc_cls.weight", "fc_reg.weight")):
                torch.nn.init.normal_(parameter, std=0.3)  # scores that differ
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
        model.eval()
        return model

    yield make
    sys.path.remove(str(configs))
