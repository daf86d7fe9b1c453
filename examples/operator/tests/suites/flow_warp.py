"""The suite of flow_warp."""

import numpy as np
import torch
from hypothesis import strategies as st

from mmdcn import ops

from .oracle import bilinear, pair
from .suite import Suite, fractions


class FlowWarp(Suite):
    name = "flow_warp"
    differentiable = ("input", "offset")
    tiny = {"plain": dict(), "units": dict(batch=2, channels=1, size=(3, 4), unit=(2, 1))}
    cases = {
        "empty_batch": dict(batch=0),
        "many_pixels": dict(batch=2, channels=5, size=(70, 61)),
        "one_pixel": dict(size=(1, 1)),
        "far": dict(size=(9, 11), reach=20),
        "integer_offsets": dict(size=(9, 11), whole=True),
    }
    # Offsets that leave pixels which no point touches.
    large = dict(batch=3, channels=12, size=(41, 37), reach=3)
    emulated = dict(large, batch=2, size=(9, 11))
    errors = {
        "input_dim": (dict(input=lambda a: a["input"][0]), "input: expected a 4-dimensional"),
        "input_dtype": (dict(input=lambda a: a["input"].int()), "input: expected dtype float64"),
        "input_no_pixels": (
            dict(input=lambda a: a["input"][..., :0]), "input: expected at least one pixel"
        ),
        "offset_dim": (dict(offset=lambda a: a["offset"][0]), "offset: expected shape"),
        "offset_size": (dict(offset=lambda a: a["offset"][..., 1:]), "offset: expected shape"),
        "offset_dtype": (
            dict(offset=lambda a: a["offset"].half()), "offset: expected the dtype of input"
        ),
        "unit_zero": (dict(unit=(0, 1)), "unit: expected"),
    }  # fmt: skip

    def oracle(self, input, offset, unit):
        unit_y, unit_x = pair(unit)
        height, width = input.shape[2:]
        out = np.zeros(input.shape)
        for n, c, y, x in np.ndindex(*out.shape):
            dy, dx = offset[n, :, y, x]
            out[n, c, y, x] = bilinear(input[n, c], y + unit_y * dy, x + unit_x * dx)
        return out

    def make(self, seed=0, batch=1, channels=2, size=(4, 5), reach=2, whole=False, unit=1):
        rng = np.random.default_rng(seed)
        pixels = fractions(rng, (batch, 2, *size), -reach, reach)
        pixels = pixels.round() if whole else pixels
        units = torch.tensor(pair(unit), dtype=pixels.dtype)
        return dict(
            input=torch.from_numpy(rng.standard_normal((batch, channels, *size))),
            offset=pixels / units[:, None, None],
            unit=unit,
        )

    def random_config(self, draw):
        return dict(
            seed=draw(st.integers(0, 2**16)),
            batch=draw(st.integers(0, 3)),
            channels=draw(st.integers(1, 9)),
            size=draw(st.tuples(st.integers(1, 14), st.integers(1, 14))),
            reach=draw(st.sampled_from([1, 3, 20])),
            whole=draw(st.booleans()),
            unit=draw(st.sampled_from([1, (1, 2), (4, 1)])),
        )

    def offsets(self, args):
        return args["offset"].movedim(1, -1)

    def flops(self, args, output):
        return 2 * 4 * output.numel(), 2 * 8 * output.numel()


SUITES = [FlowWarp]
# How to make a module, and its inputs or their shapes.
MODULES = {"FlowWarp": (lambda: ops.FlowWarp(2), [(2, 3, 6, 7), (2, 2, 6, 7)])}
