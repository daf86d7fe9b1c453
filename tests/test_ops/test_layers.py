"""Linear layers of channels-last maps: one product, whichever library computes it."""

import pytest
import torch
from torch import nn

from mmdcn.ops.modules.layers import linear


@pytest.fixture
def convolutions(monkeypatch):
    """Shapes of the inputs of all convolutions that are called."""
    seen, conv2d = [], torch.nn.functional.conv2d

    def spy(x, *args, **kwargs):
        seen.append(tuple(x.shape))
        return conv2d(x, *args, **kwargs)

    monkeypatch.setattr("torch.nn.functional.conv2d", spy)
    return seen


MAPS = {
    "map": lambda: torch.randn(2, 5, 7, 16),
    "pixel": lambda: torch.randn(1, 1, 1, 16),
    "column": lambda: torch.randn(2, 5, 1, 16),
    "flattened": lambda: torch.randn(3, 11, 16),
    "five dimensions": lambda: torch.randn(2, 3, 4, 5, 16),
    "view of channels first": lambda: torch.randn(2, 16, 5, 7).permute(0, 2, 3, 1),
    "part": lambda: torch.randn(2, 9, 8, 20)[:, ::2, 1:, 3:19],
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", MAPS)
def test_inference_is_the_product(kind, bias, convolutions):
    torch.manual_seed(0)
    layer, x = nn.Linear(16, 27, bias=bias), MAPS[kind]()
    expected = x.double() @ layer.weight.double().T + (layer.bias.double() if bias else 0)
    with torch.no_grad():
        actual = linear(layer, x)
    assert actual.dtype == torch.float32 and actual.is_contiguous()
    assert actual.shape == expected.shape
    assert (actual - expected).norm() <= 1e-6 * expected.norm()
    assert len(convolutions) == torch.backends.mkldnn.is_available()


def test_what_the_convolution_is_not_for(convolutions):
    layer, x = nn.Linear(16, 8), torch.randn(2, 5, 7, 16)
    assert torch.equal(linear(layer, x), layer(x))  # with gradients
    with torch.no_grad():
        assert torch.equal(linear(layer, x[0, 0]), layer(x[0, 0]))
        assert linear(layer, torch.empty(0, 5, 7, 16)).shape == (0, 5, 7, 8)
        assert linear(layer, torch.empty(2, 5, 0, 16)).shape == (2, 5, 0, 8)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(linear(layer, x), layer(x))
        assert torch.equal(linear(layer.double(), x.double()), layer(x.double()))
    assert convolutions == []


def test_what_stands_in_the_place_of_a_linear_layer_is_called(convolutions):
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    layer, x = Doubled(16, 8), torch.randn(2, 5, 7, 16)
    plain, seen = nn.Linear(16, 8), []
    plain.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        assert torch.equal(linear(layer, x), layer(x))
        assert linear(plain, x) is seen[0]
    assert convolutions == []


def test_a_traced_layer_is_a_linear_one():
    # What engines and exporters see does not depend on the CPU that it was traced on.
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 8)

        def forward(self, x):
            return linear(self.layer, x)

    with torch.no_grad():
        graph = str(torch.jit.trace(Model(), torch.randn(2, 5, 7, 16)).inlined_graph)
    assert "aten::linear" in graph and "conv" not in graph
