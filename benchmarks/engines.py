"""Peers that are inference engines: OpenVINO and ONNX Runtime, fed with the tensors' memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from . import formulations
from .cases import Arguments

Engine = Callable[[], Tensor]


def openvino(operator: str, args: Arguments, threads: int) -> Engine | None:
    """DeformableConvolution-8, or the grid_sample formulation of dcnv3 and dcnv4."""
    import openvino as ov
    from openvino import opset8

    tensors = {name: value for name, value in args.items() if isinstance(value, Tensor)}
    if operator in ("deform_conv2d", "modulated_deform_conv2d"):
        nodes = {k: opset8.parameter(list(v.shape), np.float32) for k, v in tensors.items()}
        optional = {"mask": nodes["mask"]} if "mask" in nodes else {}
        conv = opset8.deformable_convolution(
            nodes["input"],
            nodes["offset"],
            opset8.constant(tensors["weight"].numpy()),
            strides=[1, 1],
            pads_begin=[args["padding"]] * 2,
            pads_end=[args["padding"]] * 2,
            dilations=[1, 1],
            bilinear_interpolation_pad=True,
            **optional,
        )
        bias = opset8.constant(tensors["bias"].numpy()[None, :, None, None])
        fed = ["input", "offset", *optional]
        model = ov.Model([opset8.add(conv, bias)], [nodes[name] for name in fed])
    elif operator in ("dcnv3", "dcnv4"):
        module = formulations.Formulation(getattr(formulations, operator), groups=args["groups"])
        fed = list(tensors)
        example = tuple(tensors.values())
        model = ov.convert_model(module, example_input=example, input=[v.shape for v in example])
    else:
        return None
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = ov.Core().compile_model(model, "CPU", options).create_infer_request()
    for index, name in enumerate(fed):
        request.set_input_tensor(index, ov.Tensor(tensors[name].numpy(), shared_memory=True))

    def run() -> Tensor:
        request.infer()
        return torch.from_numpy(request.get_output_tensor().data)

    return run


def onnx_runtime(operator: str, args: Arguments, threads: int) -> Engine | None:
    """DeformConv and RoiAlign."""
    import onnxruntime
    from onnx import TensorProto, helper

    if operator in ("deform_conv2d", "modulated_deform_conv2d"):
        opset = 22
        inputs = {name: args[name] for name in ("input", "offset", "weight", "bias")}
        names = ["input", "weight", "offset", "bias"]
        if "mask" in args:
            inputs["mask"] = args["mask"]
            names.append("mask")
        node = helper.make_node(
            "DeformConv", names, ["output"], pads=[args["padding"]] * 4, kernel_shape=[3, 3]
        )
    elif operator == "deform_roi_pool" and "offset" not in args:
        opset = 16
        inputs = dict(
            input=args["input"],
            rois=args["rois"][:, 1:].contiguous(),
            index=args["rois"][:, 0].long(),
        )
        node = helper.make_node(
            "RoiAlign",
            list(inputs),
            ["output"],
            output_height=args["output_size"],
            output_width=args["output_size"],
            sampling_ratio=args["sampling_ratio"],
            spatial_scale=args["spatial_scale"],
            coordinate_transformation_mode="half_pixel",
        )
    else:
        return None
    types = {torch.float32: TensorProto.FLOAT, torch.int64: TensorProto.INT64}
    values = [helper.make_tensor_value_info(k, types[v.dtype], v.shape) for k, v in inputs.items()]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], operator, values, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_cpu_input(name, value.numpy())
    binding.bind_output("output")

    def run() -> Tensor:
        session.run_with_iobinding(binding)
        return torch.from_numpy(binding.get_outputs()[0].numpy())

    return run
