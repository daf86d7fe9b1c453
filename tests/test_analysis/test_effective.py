"""Receptive fields and effective sampling locations: known numbers and closed forms."""

import pytest
import torch
from suites.compare import NATIVE_ONLY
from torch import nn

from mmdcn import ops
from mmdcn.analysis import (
    Sampling,
    compose,
    contribution_squares,
    effective_sampling,
    mean_receptive_field,
    receptive_field,
)
from mmdcn.ops.reference.deform_conv2d import sampling_points


def sines(*shape, start=0.0):
    count = torch.Size(shape).numel()
    return (0.5 * torch.sin(0.37 * torch.arange(float(count)) + start)).reshape(shape)


def waves(*shape):
    return torch.cos(0.11 * torch.arange(float(torch.Size(shape).numel()))).reshape(shape)


def centre(y):
    return y[:, :, y.shape[2] // 2, y.shape[3] // 2].relu().sum()


@pytest.fixture
def plain_net():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 5, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(5, 6, 3, 1, 1),
    )  # fmt: skip
    for index, parameter in enumerate(net.parameters()):
        parameter.data = sines(*parameter.shape, start=index)
    return net


def test_receptive_field_of_replknets_script(plain_net):
    """Numbers computed with the formulas of that script."""
    field = receptive_field(plain_net, waves(1, 3, 32, 32), centre, "positive")[0]
    assert field.sum().item() == pytest.approx(86.67043, rel=1e-5)
    assert field.max().item() == pytest.approx(4.03203, rel=1e-5)
    assert divmod(field.argmax().item(), 32) == (13, 11) and (field > 0).sum() == 225
    log = torch.log10(field + 1)
    assert (log / log.max()).sum().item() == pytest.approx(39.72738, rel=1e-5)
    squares = contribution_squares(field)
    assert {t: side for t, (side, _) in squares.items()} == {0.2: 7, 0.3: 9, 0.5: 11, 0.99: 15}
    assert [area for _, area in squares.values()] == pytest.approx(
        [0.0478516, 0.0791016, 0.1181641, 0.2197266], abs=1e-6
    )


def test_receptive_field_of_a_linear_network_is_its_kernel():
    conv = nn.Conv2d(2, 1, 5, padding=2, bias=False)
    field = receptive_field(conv, torch.randn(1, 2, 9, 9), lambda y: y[0, 0, 4, 4])[0]
    torch.testing.assert_close(field[2:7, 2:7], conv.weight[0].detach().abs().sum(0))
    assert field.count_nonzero() == 25


def test_mean_leaves_out_what_is_not_finite(plain_net):
    images = [waves(1, 3, 32, 32), torch.full((1, 3, 32, 32), torch.nan), -waves(1, 3, 32, 32)]
    expected = [receptive_field(plain_net, images[i], centre)[0] for i in (0, 2)]
    field, count = mean_receptive_field(plain_net, images, lambda y: centre(y) + 0 * y.sum())
    assert count == 2
    torch.testing.assert_close(field, (expected[0] + expected[1]) / 2)
    with pytest.raises(ValueError, match="expected at least one with finite values"):
        mean_receptive_field(plain_net, [], centre)


@NATIVE_ONLY
def test_effective_locations_of_one_layer():
    """Numbers computed from the definition of the operator."""

    class Layer(nn.Module):
        def forward(self, x):
            c, y, w = (
                torch.arange(18.0)[:, None, None],
                torch.arange(8.0)[:, None],
                torch.arange(9.0),
            )
            offset = 0.6 * torch.sin(0.7 * c + 0.3 * y + 0.2 * w)
            return ops.deform_conv2d(x, offset[None], sines(3, 2, 3, 3), padding=1)

    (found,) = effective_sampling(Layer(), waves(1, 2, 8, 9), lambda y: y[0, :, 4, 4].sum())
    expected = [
        (-0.21837, -0.01539), (-1.32166, -0.10998), (-1.50072, -0.16541), (-0.11808, 0.08897),
        (1.62931, 0.17329), (1.33649, 0.11713), (0.73745, 0.07588), (0.22795, 0.02305),
        (-0.55983, -0.05999),
    ]  # fmt: skip
    torch.testing.assert_close(
        found.total[0, 4, 4, 0].flip(-1), torch.tensor(expected), rtol=1e-4, atol=1e-5
    )
    assert found.strength().count_nonzero() == 9
    torch.testing.assert_close(found.total, found.direct)


@NATIVE_ONLY
def test_total_minus_direct_is_the_way_through_later_offsets():
    """Two layers in one row of pixels whose gradients are known: the first moves a ramp, the second
    moves by what the first gives."""

    class Ramp(nn.Module):
        def forward(self, x):
            one = torch.ones(1, 1, 1, 1, dtype=x.dtype)
            offset = torch.full((1, 2, 1, 12), 0.25, dtype=x.dtype)
            offset[:, 0] = 0
            first = ops.deform_conv2d(x, offset, one)
            later = torch.stack([torch.zeros_like(first[:, 0]), 0.1 * first[:, 0]], 1)
            return ops.deform_conv2d(x, later, one)

    x = (2 * torch.arange(12.0, dtype=torch.float64)).reshape(1, 1, 1, 12)
    first, second = effective_sampling(Ramp(), x, lambda y: y[0, 0, 0, 3])
    # y = 2 (3 + 0.1 f) with f = 2 (3 + 0.25 + p): dy/dp is 0.4, all of it through the offset.
    assert first.total[0, 0, 3, 0, 0, 0].item() == pytest.approx(0.4)
    assert not first.direct.any()
    assert second.total[0, 0, 3, 0, 0, 0].item() == pytest.approx(2)
    torch.testing.assert_close(second.direct, second.total)
    assert first.strength().count_nonzero() == 1


@NATIVE_ONLY
def test_plain_convolutions_get_the_mean_of_both_slopes():
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False).double()
    x = torch.randn(1, 1, 7, 7, dtype=torch.float64)
    (found,) = effective_sampling(nn.Sequential(conv), x, lambda y: y[0, 0, 3, 3], plain=["0"])
    for k, weight in enumerate(conv.weight.flatten().tolist()):
        i, j = 2 + k // 3, 2 + k % 3
        dx = weight * (x[0, 0, i, j + 1] - x[0, 0, i, j - 1]) / 2
        dy = weight * (x[0, 0, i + 1, j] - x[0, 0, i - 1, j]) / 2
        torch.testing.assert_close(
            found.total[0, 3, 3, 0, k], torch.stack([dx, dy]), rtol=0, atol=2e-3
        )


@NATIVE_ONLY
def test_layers_are_chosen_by_name():
    layers = [ops.DeformConv2dPack(2, 2, 3, padding=1) for _ in range(2)]
    model, image = nn.Sequential(*layers), torch.randn(1, 2, 6, 6)
    (found,) = effective_sampling(model, image, lambda y: y[0, 0, 2, 2], layers=["1"])
    assert found.sampling.layer == "1"
    with pytest.raises(ValueError, match=r"layers: \['7'\] are not deformable, or did not run"):
        effective_sampling(model, image, lambda y: y.sum(), layers=["1", "7"])
    assert effective_sampling(nn.Conv2d(2, 2, 3), image, lambda y: y.sum()) == []


def level(k: float, scale: float = 1.5) -> Sampling:
    c = torch.arange(18.0)[:, None, None]
    y, x = torch.arange(16.0)[:, None], torch.arange(20.0)
    offset = scale * torch.sin(0.7 * c + 0.3 * y + 0.2 * x + k)
    window = ((3, 3), (1, 1), (2, 2), (2, 2), 1)
    return Sampling("", "deform_conv2d", (16, 20), sampling_points(offset[None], *window), None)


def test_composition_away_from_borders():
    """Numbers of the official demo of Deformable ConvNets, which at borders mixes the taps up."""
    levels = compose([level(0), level(1)], (8, 10))
    sums = [(len(p), p[:, 1].sum().item(), p[:, 0].sum().item()) for p, _ in levels]
    assert sums[0] == (9, pytest.approx(71.9787, abs=1e-3), pytest.approx(89.9625, abs=1e-3))
    assert sums[1] == (81, pytest.approx(638.7419, abs=1e-3), pytest.approx(800.7993, abs=1e-3))
    first, last = levels[0][0][0], levels[0][0][-1]
    assert first.flip(0).tolist() == pytest.approx([4.5726, 6.6113], abs=1e-4)
    assert last.flip(0).tolist() == pytest.approx([10.1616, 11.1629], abs=1e-4)


def test_composition_without_offsets_is_a_grid():
    levels = compose([level(k, scale=0) for k in range(3)], (8, 10))
    for depth, (points, weights) in enumerate(levels, start=1):
        assert len(points) == 9**depth and len(points.unique(dim=0)) == (2 * depth + 1) ** 2
        assert points.sum(0).tolist() == [10 * 9**depth, 8 * 9**depth]
        assert torch.equal(weights, torch.ones(9**depth))


def test_composition_at_a_border_by_loops():
    """The tap's index is kept where samples are dropped."""
    levels = [level(0), level(1)]
    expected = []
    for tap in range(9):
        x, y = levels[0].locations[0, 1, 1, 0, tap].tolist()
        row, column = round(y), round(x)
        if 0 <= row < 16 and 0 <= column < 20:
            for below in range(9):
                expected.append(levels[1].locations[0, row, column, 0, below].tolist())
    points, _ = compose(levels, (1, 1))[1]
    assert points.tolist() == expected and 0 < len(expected) < 81


def test_composition_follows_masks_and_strides():
    upper, lower = level(0, scale=0), level(0, scale=0)
    upper.map_size = (8, 10)  # half of the output of the lower
    upper.weights = torch.full(upper.locations.shape[:-1], 0.5)
    lower.weights = torch.full(lower.locations.shape[:-1], 0.25)
    points, weights = compose([upper, lower], (3, 4))[1]
    assert len(points) == 81 and torch.equal(weights, torch.full((81,), 0.125))
    # (4, 3) of the half map lies at (8.5, 6.5), which rounds to (8, 6).
    assert points[40].tolist() == [8, 6]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: receptive_field(nn.Identity(), torch.zeros(3, 4, 4), None), "image: expected"),
        (
            lambda: receptive_field(nn.Identity(), torch.zeros(1, 3, 4, 4), lambda y: y),
            r"node: expected a scalar, got shape \(1, 3, 4, 4\)",
        ),
        (
            lambda: receptive_field(nn.Identity(), torch.zeros(1, 3, 4, 4), None, "all"),
            "signs: expected 'both' or 'positive', got 'all'",
        ),
        (lambda: contribution_squares(torch.zeros(4, 4)), "expected a positive sum"),
        (lambda: contribution_squares(torch.ones(9, 30)), "no square holds more than 0.3"),
        (lambda: compose([level(0)], (16, 0)), r"expected a pixel of 16x20, got \(16, 0\)"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
