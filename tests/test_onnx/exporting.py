"""Export of single operators with dynamic shapes, and runs of the result."""

import numpy as np
import onnx
import onnxruntime
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from mmdcn.onnx import translation_table


class Exported:
    """A model exported with all axes of all inputs dynamic but those of channels.

    Args:
        model: What to export.
        inputs: Examples, no axis that is to be dynamic of length 0 or 1.
        static: Axes of each input that stay as they are.
        standard_ops: As in :func:`mmdcn.onnx.translation_table`.
        opset: Version of the operators.
    """

    def __init__(self, model: nn.Module, inputs, static, standard_ops=False, opset=20):
        axes = tuple(
            {axis: Dim.AUTO for axis in range(tensor.dim()) if axis not in fixed}
            for tensor, fixed in zip(inputs, static, strict=True)
        )
        program = torch.onnx.export(
            model.eval(),
            tuple(inputs),
            dynamo=True,
            opset_version=opset,
            dynamic_shapes=(axes,),
            custom_translation_table=translation_table(standard_ops),
            verbose=False,
        )
        self.proto = program.model_proto
        onnx.checker.check_model(self.proto, full_check=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            self.proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    @property
    def operators(self) -> set[str]:
        return {node.op_type for node in self.proto.graph.node}

    def feeds(self, inputs) -> dict[str, np.ndarray]:
        names = [value.name for value in self.session.get_inputs()]
        return {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The output of ONNX Runtime."""
        return torch.from_numpy(self.session.run(None, self.feeds(inputs))[0])

    def evaluated(self, *inputs: Tensor) -> Tensor:
        """The output of the evaluator that comes with ONNX."""
        (output,) = ReferenceEvaluator(self.proto).run(None, self.feeds(inputs))
        return torch.from_numpy(np.asarray(output))


class Windowed(nn.Module):
    """An operator whose offsets (and masks) are chosen pixels of maps as large as the input, so
    that their number follows from its size."""

    def __init__(self, function, window, options):
        super().__init__()
        self.function, self.window, self.options = function, window, options

    def pick(self, maps: Tensor) -> Tensor:
        kernel, stride, padding, dilation = self.window
        first = maps.new_zeros(maps.shape[1], 1, *kernel)
        first[..., -1, -1] = 1
        return F.conv2d(maps, first, None, stride, padding, dilation, groups=maps.shape[1])

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(self.pick, *tensors, **self.options)


def close(found: Tensor, expected: Tensor) -> None:
    """Equal up to 1e-4 of the largest value."""
    assert found.shape == expected.shape
    scale = expected.abs().max().item() if expected.numel() else 1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * max(scale, 1e-3))
