"""Compressed run lengths of COCO's masks: whether they describe a mask of a given size.

pycocotools trusts such a text, and reads or writes outside of its memory when it lies.
"""

import re
from collections.abc import Sequence

import numpy as np

BITS, MORE, SIGN, BASE = 5, 0x20, 0x10, 48  # a character holds five bits, the lowest first
WHOLE = re.compile("[0-o]*[0-O]")  # 0 is character 48, O the last one without MORE
MAX_CHARACTERS = 7  # of one number: pycocotools computes in 32 bits


def fits(texts: Sequence[str], pixels: Sequence[int]) -> np.ndarray:
    """Which of the texts are whole and add up to their number of pixels.

    All texts are decoded in one go: one by one would take a minute for a million of them.

    Args:
        texts: Compressed run lengths.
        pixels: Height times width of each mask.

    Returns:
        One boolean per text.
    """
    pixels = np.asarray(pixels, np.int64)
    good = np.array([WHOLE.fullmatch(text) is not None for text in texts], bool)
    if not good.any():
        return good
    kept = [text.encode() for text, ok in zip(texts, good, strict=True) if ok]
    codes = np.frombuffer(b"".join(kept), np.uint8).astype(np.int64) - BASE
    text_ends = np.cumsum([len(text) for text in kept])

    ends = np.flatnonzero(codes & MORE == 0)  # last character of each number
    starts = np.append(0, ends[:-1] + 1)
    lengths = ends - starts + 1
    position = np.arange(len(codes)) - np.repeat(starts, lengths)
    too_long = lengths > MAX_CHARACTERS
    shifted = (codes & (MORE - 1)) << (BITS * np.minimum(position, MAX_CHARACTERS))
    numbers = np.add.reduceat(shifted, starts)
    negative = codes[ends] & SIGN != 0
    numbers[negative] -= 1 << (BITS * np.minimum(lengths, MAX_CHARACTERS + 1)[negative])

    # From the fourth number of a text on, a number is the difference to the last but one.
    owner = np.searchsorted(text_ends, ends, side="right")
    first = np.searchsorted(owner, np.arange(len(kept)))
    order = np.arange(len(numbers)) - first[owner]
    runs = numbers.copy()
    for parity in (1, 0):
        chain = (order % 2 == parity) & (order > 0)
        sums = np.cumsum(numbers[chain])
        heads = np.flatnonzero(np.diff(owner[chain], prepend=-1))
        before = np.append(0, sums)[heads]
        runs[chain] = sums - np.repeat(before, np.diff(np.append(heads, len(sums))))

    wrong = np.bincount(owner, (runs < 0) | too_long, len(kept)) > 0
    total = np.add.reduceat(runs, first)
    good[good] = ~wrong & (total == pixels[good])
    return good
