"""Calls of the native operators with arguments of all kinds, right and wrong.

A call computes what the reference computes, or raises where the reference does. Anything else is a
fault, a crash most of all: `make sanitize` runs these tests on a library that notices more of them.
MMDCN_FUZZ_CASES sets how many calls are made of each operator.
"""

import itertools
import math
import os
import random

import pytest
import torch
from suites.compare import NATIVE_ONLY, assert_close
from torch import Tensor

from mmdcn.ops._registration import OPERATORS

pytestmark = NATIVE_ONLY
CASES = int(os.environ.get("MMDCN_FUZZ_CASES", 120))
LARGEST = 2**18  # elements of a result; more would only take long
# The differences of sizes overflow, the products do, or they wrap around to a small number.
NUMBERS = [-(2**63), -(2**40), -3, -1, 0, 1, 2, 3, 7, 1000, 2**15, 2**16, 2**31 - 1, 2**31, 2**32,
           2**32 + 3, 3 * 2**61, 2**62, 2**63 - 1]  # fmt: skip
FLOATS = [0.0, -1.0, 1e-30, 0.5, 1e9, 1e30, 1e300, math.inf, -math.inf, math.nan]


def mutated(value, rng: random.Random):
    """Something else in the place of an argument, of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice(NUMBERS)
    if isinstance(value, float):
        return rng.choice(FLOATS)
    if isinstance(value, list):
        length = rng.choice([2, 2, 2, 2, 0, 1, 3])
        kept = [rng.choice([*value, *value, *value, rng.choice(NUMBERS)]) for _ in range(length)]
        return rng.choice([kept, [rng.choice(NUMBERS)] * 2])
    if value is None:
        return torch.rand(rng.choices([0, 1, 2, 3], k=rng.choice([1, 4])), dtype=torch.float64)
    return mutated_tensor(value, rng)


def mutated_tensor(t: Tensor, rng: random.Random) -> Tensor:
    kind = rng.randrange(9)
    axis = rng.randrange(t.dim()) if t.dim() else 0
    if kind == 0 and t.dim():
        return t.narrow(axis, 0, rng.randint(0, t.shape[axis]))
    if kind == 1 and t.dim():
        return torch.cat([t] * rng.choice([2, 3]), axis)
    if kind == 2:
        return t.to(rng.choice([torch.float32, torch.float16, torch.bfloat16, torch.int64]))
    if kind == 3:
        return t.unsqueeze(axis) if rng.random() < 0.5 else t.flatten()
    if kind == 4 and t.dim():
        shape = [*t.shape]
        shape[axis] = rng.choice([0, 2**31, 2**40, 2**62])
        if math.prod(shape) < 2**63:  # PyTorch itself refuses the others
            return t.new_zeros(()).expand(shape)  # no memory behind it
    if kind == 5:
        return t.to("meta")
    if kind == 6 and t.dim() > 1:
        return t.movedim(-1, 0).contiguous().movedim(0, -1)
    if kind == 7 and t.numel():
        changed = t.clone()
        for _ in range(rng.choice([1, 5])):
            changed.view(-1)[rng.randrange(t.numel())] = rng.choice(FLOATS)
        return changed
    return t


def calls(suite, seed: int):
    """Arguments of the forward operator, near some that fit."""
    rng = random.Random(f"{suite.name} {seed}")
    base = suite.operator_arguments(
        suite.make(**rng.choice([*suite.tiny.values(), suite.emulated]))
    )
    changed = list(base)
    count = min(len(base), rng.choice([0, 1, 1, 1, 2, 3]))
    for position in rng.sample(range(len(base)), count):
        changed[position] = mutated(base[position], rng)
    return rng, changed


def outcome(function, args):
    try:
        result = function(*args)
    except (RuntimeError, ValueError, TypeError, OverflowError, NotImplementedError) as error:
        return None, error
    return result, None


def is_small(operator, args) -> bool:
    """Whether the reference can compute it without filling the memory."""
    shape, _ = outcome(operator.output_shape, args)
    sizes = [math.prod(shape or ()), *(a.numel() for a in args if isinstance(a, Tensor))]
    return max(sizes) <= LARGEST


@pytest.mark.parametrize("part", range(4))
def test_calls(suite, part):
    operator = OPERATORS[suite.operator]
    computed = 0
    for seed in range(part * CASES // 4, (part + 1) * CASES // 4):
        _, args = calls(suite, seed)
        shape, refusal = outcome(operator.output_shape, args)
        if refusal is None and not is_small(operator, args):
            continue
        actual, error = outcome(operator.forward, args)
        if refusal is not None:
            assert error is not None, (seed, args, refusal)
            continue
        if any(isinstance(a, Tensor) and a.device.type == "meta" for a in args):
            assert error is None, (seed, args, error)
            continue
        if max((a for a in args if isinstance(a, int)), default=0) > 100:
            continue  # a grid of samples on which the reference would spend minutes
        expected, problem = outcome(operator.reference, args)
        assert (error is None) == (problem is None), (seed, args, error, problem)
        if error is None:
            computed += 1
            tolerance = suite.tolerance.get(actual.dtype)
            assert torch.equal(actual.isfinite(), expected.isfinite()), (seed, args)
            if tolerance and expected.isfinite().all():
                assert_close({"": actual}, {"": expected}, tolerance)
    assert computed > CASES // 60


@pytest.mark.parametrize("part", range(4))
def test_calls_of_the_backward_operator(suite, part):
    """There is no reference with its arguments: no crash, and an error or gradients that fit."""
    operator = OPERATORS[suite.operator]
    for seed in range(part * CASES // 4, (part + 1) * CASES // 4):
        rng, args = calls(suite, seed)
        if not is_small(operator, args):
            continue
        given = dict(zip(operator.names, args, strict=True))
        shape, refusal = outcome(operator.output_shape, args)
        values = []
        for name in operator.backward_names:
            if name == "grad_output":
                grad = torch.rand(shape or (1, 1, 1, 1), dtype=torch.float64)
                values.append(grad if rng.random() < 0.8 else mutated(grad, rng))
            elif name in given:
                values.append(given[name])
            else:
                values.append(rng.random() < 0.8)
        gradients, error = outcome(operator.backward, values)
        assert refusal is None or error is not None, (seed, values)
        if error is None and isinstance(gradients, Tensor):
            gradients = (gradients,)
        for gradient in gradients or ():
            assert gradient.numel() <= 64 * LARGEST


def test_numbers_are_tried_together(suite):
    """Every pair of extreme sizes in every argument that is a pair of integers."""
    base = suite.operator_arguments(suite.smallest())
    operator = OPERATORS[suite.operator]
    for position, value in enumerate(base):
        if not isinstance(value, list):
            continue
        for pair in itertools.product([1, 3, 2**16, 2**31, 2**32, 2**62, 2**63 - 1], repeat=2):
            args = [*base[:position], list(pair), *base[position + 1 :]]
            shape, refusal = outcome(operator.output_shape, args)
            if refusal is None and math.prod(shape) > LARGEST:
                continue
            _, error = outcome(operator.forward, args)
            assert (error is None) == (refusal is None), (pair, error, refusal)
