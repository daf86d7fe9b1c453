"""The picture of README can be drawn again, and shows what its titles say."""

import sys

import pytest
import torch

pytest.importorskip("cv2")
pytest.importorskip("matplotlib")
pytestmark = pytest.mark.slow  # hundreds of steps of training each


@pytest.fixture
def overview(root, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(root / "docs"), *sys.path])
    import overview

    return overview


def test_learnt_offsets_see_more_of_the_object(overview):
    _, near = overview.scene(seed=9)
    grid, ones = near.new_zeros(18), near.new_ones(9)
    offset, _ = overview.learn(near, 0.0001, modulated=False)
    fixed, learnt = (overview.sample(near, o, ones) for o in (grid, offset))
    assert learnt > 1.3 * fixed
    distances = torch.pdist(torch.from_numpy(overview.taps(offset)))
    assert distances.min() > 6  # pixels: not the same place nine times


def test_learnt_masks_drop_the_taps_beside_the_object(overview):
    _, near = overview.scene(seed=9)
    offset, mask = overview.learn(near, 0.003, modulated=True)
    rows, columns = torch.from_numpy(overview.taps(offset)).round().long().T
    seen = near[0, 0, rows, columns]
    assert 2 < (mask > 0.5).sum() < 9
    assert seen[mask > 0.5].min() > seen[mask <= 0.5].max()


def test_picture_is_drawn(overview, tmp_path):
    overview.main(tmp_path / "overview.jpg")
    assert 10_000 < (tmp_path / "overview.jpg").stat().st_size < 150 * 1024
