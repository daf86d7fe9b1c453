"""Every operator: the rest of PyTorch."""

import pytest
import torch
from suites.compare import (
    NATIVE_ONLY,
    assert_equal,
    cast,
)
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


class _Module(nn.Module):
    """An operator as a module of its tensors, for export."""

    def __init__(self, function, args) -> None:
        super().__init__()
        self.function = function
        self.names = [name for name, value in args.items() if isinstance(value, Tensor)]
        self.options = {k: v for k, v in args.items() if k not in self.names}

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(**dict(zip(self.names, tensors, strict=True)), **self.options)


@NATIVE_ONLY
def test_opcheck(suite, tiny):
    args = cast(suite.make(**tiny), torch.float32)
    for name in suite.differentiable:
        if args[name] is not None:
            args[name].requires_grad_()
    op = getattr(torch.ops.mmdcn, suite.operator).default
    torch.library.opcheck(op, suite.operator_arguments(args))


@NATIVE_ONLY
def test_meta_tensors(suite, case):
    args = cast(suite.make(**case), torch.float32)
    meta = {k: v.to("meta") if isinstance(v, Tensor) else v for k, v in args.items()}
    actual, expected = suite.function(**meta), suite.function(**args)
    assert actual.device.type == "meta"
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    assert actual.stride() == expected.stride()


@NATIVE_ONLY
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compile(suite, backend):
    args = cast(suite.make(**suite.large), torch.float32)
    torch._dynamo.reset()
    compiled = torch.compile(suite.function, fullgraph=True, backend=backend)
    assert_equal(suite.run(compiled, args), suite.run(suite.function, args))


@NATIVE_ONLY
def test_export(suite):
    args = cast(suite.make(**suite.large), torch.float32)
    tensors = tuple(v for v in args.values() if isinstance(v, Tensor))
    program = torch.export.export(_Module(suite.function, args), tensors)
    assert any(suite.operator in str(node.target) for node in program.graph.nodes)
    assert torch.equal(program.module()(*tensors), suite.function(**args))


@NATIVE_ONLY
def test_flop_counter(suite):
    args = suite.make(**suite.large)
    leaves = {n: args[n].requires_grad_() for n in suite.differentiable if args[n] is not None}
    with FlopCounterMode(display=False) as counter:
        output = suite.function(**{**args, **leaves})
        forward = counter.get_total_flops()
        output.sum().backward()
    expected = suite.flops(args, output)
    assert (forward, counter.get_total_flops() - forward) == expected
