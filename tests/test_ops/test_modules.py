"""What all modules of mmdcn.ops have in common: tracing, quantisation, checks of maps."""

import numpy as np
import pytest
import torch
from suites import MODULES
from suites.compare import NATIVE_ONLY
from torch import fx, nn

from mmdcn import ops


def example(name):
    make, inputs = MODULES[name]
    torch.manual_seed(0)
    module = make()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module, [torch.randn(i) if isinstance(i, tuple) else i for i in inputs]


def test_the_table_is_complete():
    classes = {name for name in ops.__all__ if isinstance(getattr(ops, name), type)}
    assert classes == MODULES.keys()


@pytest.mark.parametrize("native", [pytest.param(True, marks=NATIVE_ONLY), False])
@pytest.mark.parametrize("name", MODULES)
def test_symbolic_trace(name, native, monkeypatch):
    if not native:
        monkeypatch.setattr("mmdcn._extension.use_native", lambda device_type: False)
        monkeypatch.setattr("mmdcn.ops._registration.OPERATORS", {})
    module, inputs = example(name)
    # For fx an argument with a default is one that is given, unless it is told otherwise.
    absent = {"features": None} if "PSRoIPoolPack" in name else None
    traced = fx.symbolic_trace(module, absent)
    assert any(node.op == "call_function" for node in traced.graph.nodes)
    assert torch.equal(traced(*inputs), module(*inputs))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", MODULES)
def test_jit_trace(name):
    module, inputs = example(name)
    traced = torch.jit.trace(module, tuple(inputs))
    torch.testing.assert_close(traced(*inputs), module(*inputs))


@pytest.mark.parametrize("name", ["DCNv3", "DCNv4"])
def test_dynamic_quantisation_reaches_the_linear_layers(name):
    quantize = pytest.importorskip("torch.ao.quantization").quantize_dynamic
    module, inputs = example(name)
    quantized = quantize(module, {nn.Linear}, dtype=torch.qint8)
    assert not any(type(m) is nn.Linear for m in quantized.modules())
    with torch.no_grad():
        expected, actual = module(*inputs), quantized(*inputs)
    assert (actual - expected).norm() < 0.1 * expected.norm() and not torch.equal(actual, expected)


@pytest.mark.parametrize("name", ["DCNv3", "DCNv4"])
@pytest.mark.parametrize("shape", [(2, 16, 6, 7), (6, 7, 16), (2, 6, 7, 15), (42, 16)])
def test_map_in_another_layout(name, shape):
    module, _ = example(name)
    if name == "DCNv4" and len(shape) == 3:
        return  # a flattened map, whose errors are tested elsewhere
    message = rf"input: expected a channels-last map \(N, H, W, 16\), got shape \({shape[0]}, "
    with pytest.raises(ValueError, match=message):
        module(torch.zeros(shape))


def test_integers_of_numpy():
    layer = ops.DeformConv2d(4, 4, np.int64(3), padding=(np.int32(1), 1))
    assert layer.kernel_size == (3, 3) and type(layer.kernel_size[0]) is int
    image, offset = torch.randn(1, 4, 5, 5), torch.randn(1, 18, 5, 5)
    expected = ops.deform_conv2d(image, offset, layer.weight, None, 1, (np.int64(1), 1))
    assert torch.equal(layer(image, offset), expected)


@pytest.mark.parametrize("value", [3.0, "33", None, (1, 2, 3), (1,), (1, 2.5), {}])
def test_what_is_no_pair(value):
    with pytest.raises(ValueError, match="kernel_size: expected one or two integers, got"):
        ops.DeformConv2d(4, 4, value)
