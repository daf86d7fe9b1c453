"""Compressed run lengths that pycocotools can be given, judged by what it writes itself."""

import numpy as np
import pytest

from mmdcn.datasets.run_lengths import fits

mask_utils = pytest.importorskip("pycocotools.mask")


@pytest.fixture(scope="module")
def masks():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        height, width = rng.integers(1, 90, 2)
        density = rng.choice([0, 0.01, 0.1, 0.5, 0.9, 1])
        found.append(np.asfortranarray(rng.random((height, width)) < density, dtype=np.uint8))
    found.append(np.zeros((3000, 2000), np.uint8, order="F"))  # counts of several characters
    found[-1][500:2500, 300:1500] = 1
    return found


@pytest.fixture(scope="module")
def texts(masks):
    return [mask_utils.encode(mask)["counts"].decode() for mask in masks]


def test_what_pycocotools_writes_is_accepted(masks, texts):
    assert fits(texts, [mask.size for mask in masks]).all()
    for mask, text in zip(masks[:20], texts, strict=False):
        assert fits([text], [mask.size]).all()


def test_other_sizes_are_refused(masks, texts):
    assert not fits(texts, [mask.size + 1 for mask in masks]).any()


def test_cut_off_texts_are_refused(masks, texts):
    cut = [text[:-1] for text in texts]
    assert not fits(cut, [mask.size for mask in masks]).any()


@pytest.mark.parametrize(
    ("text", "pixels"),
    [
        ("", 0),
        ("p", 1),  # not one of its characters
        ("é", 1),
        ("1 1", 2),
        ("1o", 1),  # goes on after its end
        ("O", -1),  # a negative count
        ("5O", 4),
        ("oooooooooo0", 31),  # more bits than there are
    ],
)
def test_invalid_texts_are_refused(text, pixels):
    assert not fits([text, "1"], [pixels, 1])[0]
    assert fits([text, "1"], [pixels, 1])[1]


def test_one_text_does_not_change_another(masks, texts):
    sizes = [mask.size for mask in masks]
    mixed = [text[:-1] if index % 3 else text for index, text in enumerate(texts)]
    expected = [index % 3 == 0 for index in range(len(texts))]
    assert fits(mixed, sizes).tolist() == expected
