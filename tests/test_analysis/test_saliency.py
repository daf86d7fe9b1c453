"""The region that is returned keeps the response, and a needless one is not returned."""

import pytest
import torch
from torch import nn

from mmdcn.analysis import saliency_region
from mmdcn.analysis.saliency import LOSSES


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()
    ).eval()  # fmt: skip


def node(y):
    return y[:, :, 4, 4]


SHORT = dict(steps=15, searches=3, cell=4)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_certificate(net, loss, baseline):
    image = torch.randn(1, 3, 32, 30)  # cells at the right border are cut
    region = saliency_region(net, image, node, loss=loss, baseline=baseline, **SHORT)
    assert region.mask.shape == (32, 30) and region.cells.shape == (8, 8)
    masked = torch.where(region.mask, image, torch.tensor(baseline))
    with torch.no_grad():
        whole, kept = node(net(image)).flatten(), node(net(masked)).flatten()
    error = LOSSES[loss](kept, whole).item()
    assert error == pytest.approx(region.error, abs=1e-6) and error < 0.1
    assert region.area == pytest.approx(region.mask.float().mean().item())
    # The node sees 7 x 7 pixels, of which at most 3 x 3 cells have a part.
    assert 0 < region.cells.sum() <= 9


def test_smallest_region_of_a_network_that_looks_at_two_cells():
    class TwoCells(nn.Module):
        def forward(self, x):
            return x[:, :, 0:4, 0:4].mean((2, 3)) + x[:, :, 20:24, 8:12].mean((2, 3))

    image = torch.rand(1, 3, 24, 24) + 0.5
    region = saliency_region(TwoCells(), image, lambda y: y, epsilon=1e-3, **SHORT)
    assert region.cells.nonzero().tolist() == [[0, 0], [5, 2]]
    assert region.area == pytest.approx(2 / 36) and region.error == 0


def test_where_all_is_needed_all_is_kept():
    class Everything(nn.Module):
        def forward(self, x):
            return x.flatten(1)

    image = torch.ones(1, 1, 8, 8)
    region = saliency_region(Everything(), image, lambda y: y, epsilon=1e-3, **SHORT)
    assert region.mask.all() and region.area == 1 and region.ordering == "whole"


def test_progress_comes_to_an_end(net):
    calls = []
    saliency_region(
        net, torch.randn(1, 3, 32, 32), node, progress=lambda *a: calls.append(a), **SHORT
    )
    done, most = zip(*calls, strict=True)
    assert list(done) == list(range(2, len(done) + 2)) and done[-1] <= most[-1]


def test_model_that_changes_between_runs_is_told():
    class Changing(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return x.mean((2, 3)) * (1 if self.calls < 8 else 0.1)

    # 1 run of the whole image, 2 for rankings, 4 to find a prefix of 16 cells; then the check.
    options = dict(searches=0, prune=0, cell=4)
    with pytest.raises(RuntimeError, match="two runs differ"):
        saliency_region(Changing(), torch.ones(1, 3, 16, 16), lambda y: y, **options)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(image=torch.ones(2, 3, 8, 8)), "expected one image, got a batch of 2"),
        (dict(loss="l1"), "loss: expected one of"),
        (dict(epsilon=0), "epsilon: expected a positive bound, got 0"),
        (dict(cell=0), "cell: expected a positive number"),
        (dict(steps=0), "steps: expected a number of at least 1, got 0"),
        (dict(prune=-1), "prune: expected a number of at least 0, got -1"),
        (dict(node=lambda y: 0 * y), "expected a finite response to the image that is not 0"),
    ],
)
def test_mistakes_are_named(options, message):
    arguments = dict(image=torch.ones(1, 3, 8, 8), node=lambda y: y) | options
    with pytest.raises(ValueError, match=message):
        saliency_region(nn.Identity(), **arguments)
