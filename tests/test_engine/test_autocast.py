"""Training in bfloat16 on a CPU: detectors with MMCV's operators, which know no bfloat16."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

from mmdcn.engine.optimizers.autocast import to_float32

pytest.importorskip("mmdet")


@pytest.fixture(scope="module")
def cfg(root):
    return Config.fromfile(root / "tests" / "test_tools" / "configs" / "tiny_mask_rcnn.py")


def step(cfg, wrapper_type):
    """The losses of a training step, and the gradient that it leaves."""
    from mmdet.testing import demo_mm_inputs

    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(cfg.model)
    model.init_weights()
    optimizer = dict(type="SGD", lr=0.0)
    wrapper = build_optim_wrapper(model, dict(type=wrapper_type, optimizer=optimizer))
    batch = demo_mm_inputs(2, image_shapes=[(3, 64, 96)] * 2, num_classes=3, with_mask=True)
    seen = []
    conv = model.backbone.layer2[0].conv2.conv_offset
    conv.register_forward_hook(lambda _, args, output: seen.append(output.dtype))
    # without the step's zero_grad the gradients stay
    wrapper.zero_grad = lambda **kwargs: None
    logged = model.train().train_step(batch, wrapper)
    grads = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    return logged["loss"].item(), grads, seen[0]


def test_detector_trains_in_bfloat16(cfg):
    loss, grads, dtype = step(cfg, "mmdcn.BFloat16OptimWrapper")
    expected, expected_grads, plain_dtype = step(cfg, "OptimWrapper")
    assert (dtype, plain_dtype) == (torch.bfloat16, torch.float32)
    assert loss == pytest.approx(expected, rel=0.05)
    assert grads.isfinite().all()
    cosine = torch.nn.functional.cosine_similarity(grads, expected_grads, dim=0)
    assert cosine > 0.9


def test_to_float32_looks_into_containers():
    half = torch.ones(2, dtype=torch.bfloat16)
    index = torch.ones(2, dtype=torch.int64)
    result = to_float32(([half, index], {"a": (half,)}, "text"))
    assert result[0][0].dtype == result[1]["a"][0].dtype == torch.float32
    assert result[0][1] is index and result[2] == "text"
