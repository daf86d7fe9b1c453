"""Outlines of the deformed shapes, and what deforms them.

A shape is a list of parts, (N, 2) corners of closed outlines without holes; together they are about
2 units across.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

Shape = list[np.ndarray]


def star() -> np.ndarray:
    radius = np.tile([1.0, 0.42], 5)
    angle = np.arange(10) * math.pi / 5
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def crescent() -> np.ndarray:
    outer = np.linspace(0.3 * math.pi, 1.7 * math.pi, 40)
    horn = np.array([math.cos(outer[0]), math.sin(outer[0])])
    centre = 0.72  # of the inner circle, which passes through both horns
    radius = math.hypot(horn[0] - centre, horn[1])
    half = math.atan2(horn[1], horn[0] - centre)
    inner = np.linspace(2 * math.pi - half, half, 40)[1:-1]
    return np.concatenate(
        [
            np.stack([np.cos(outer), np.sin(outer)], axis=1),
            np.stack([centre + radius * np.cos(inner), radius * np.sin(inner)], axis=1),
        ]
    )


def fish() -> np.ndarray:
    t = np.linspace(0, 1, 24)
    body = np.stack([1.0 - 1.5 * t, 0.5 * np.sin(math.pi * t**0.8) ** 0.8 + 0.11 * t], axis=1)
    tail = np.array([[-1.0, 0.55], [-0.82, 0.0], [-1.0, -0.55]])
    return np.concatenate([body, tail, body[:0:-1] * [1, -1]])


# ----------------------------------------------------------------------------- articulated shapes


def limb(
    start: np.ndarray, heading: float, curvature: np.ndarray, length: float, width: float
) -> np.ndarray:
    """A stroke from ``start`` on; the curvature goes linearly from its first to its last value."""
    steps = 16
    step = length / steps
    headings = heading + np.concatenate([[0], np.cumsum(np.linspace(*curvature, steps) * step)])
    along = np.stack([np.cos(headings), np.sin(headings)], axis=1)
    centre = start + np.concatenate([np.zeros((1, 2)), np.cumsum(along[:-1] * step, axis=0)])
    side = along[:, ::-1] * [-width / 2, width / 2]
    angle = headings[-1] + np.linspace(-math.pi / 2, math.pi / 2, 7)[1:-1]
    tip = centre[-1] + width / 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.concatenate([centre - side, tip, (centre + side)[::-1]])


def limbs(count: int, rng: np.random.Generator, play: float = 1.0) -> Shape:
    """Limbs that grow from one joint; ``play`` (0 to 1) is how freely they are articulated."""
    width = 0.26 + play * rng.uniform(-0.06, 0.06)
    spacing = 2 * math.pi / count
    # Neighbours may come close, but must not merge.
    jitter = {2: 0.3, 3: 0.22, 4: 0.17}[count] * spacing
    angles = spacing * np.arange(count) + play * rng.uniform(-jitter, jitter, count)
    corners = np.linspace(0, 2 * math.pi, 16, endpoint=False)
    parts = [0.55 * width * np.stack([np.cos(corners), np.sin(corners)], axis=1)]
    for angle in angles:
        length = 1 - play * rng.uniform(0, 0.4)
        parts.append(limb(np.zeros(2), angle, play * rng.uniform(-0.8, 0.8, 2), length, width))
    return parts


def ring(rng: np.random.Generator, play: float = 1.0) -> Shape:
    """A stroke that nearly closes."""
    width = 0.28 + play * rng.uniform(-0.08, 0.08)
    radius = 0.8
    turn = 2 * math.pi * (0.86 - play * rng.uniform(-0.02, 0.1))
    curvature = 1 / radius * np.array([1, 1])
    return [limb(np.array([0.0, -radius]), 0, curvature, turn * radius, width)]


# Each makes one shape of its class.
SHAPES: dict[str, Callable[[np.random.Generator, float], Shape]] = dict(
    star=lambda rng, play: [star()],
    crescent=lambda rng, play: [crescent()],
    fish=lambda rng, play: [fish()],
    hook=partial(limbs, 2),
    fork=partial(limbs, 3),
    cross=partial(limbs, 4),
    ring=ring,
)


# ------------------------------------------------------------------------------------ deformation


def distractor(rng: np.random.Generator) -> Shape:
    """An object of no class: a regular polygon, an ellipse or a thick stroke."""
    if rng.random() < 0.3:
        x = np.linspace(-1, 1, 20)
        y = 0.3 * np.sin(x * rng.uniform(1, 4) + rng.uniform(0, 6))
        width = rng.uniform(0.06, 0.2)
        return [np.concatenate([np.stack([x, y + width], 1), np.stack([x, y - width], 1)[::-1]])]
    corners = int(rng.choice([4, 4, 6, 40]))
    angle = 2 * math.pi * np.arange(corners) / corners
    return [np.stack([np.cos(angle), np.sin(angle)], axis=1) * [1, rng.uniform(0.35, 1)]]


def deform(
    shape: Shape,
    rng: np.random.Generator,
    bend: float = 0.5,
    stretch: float = 0.25,
    shear: float = 0.4,
) -> Shape:
    """Bend, warp, stretch, shear, mirror and rotate a shape.

    Args:
        shape: Its parts.
        rng: Source of all randomness.
        bend: The largest curvature.
        stretch: The largest logarithm of the factor of one axis, and of the divisor of the other.
        shear: The largest shear.
    """
    # Points along the edges, so that straight edges can bend.
    t = np.linspace(0, 1, 8, endpoint=False)[None, :, None]
    points = np.concatenate(
        [
            ((1 - t) * part[:, None] + t * np.roll(part, -1, axis=0)[:, None]).reshape(-1, 2)
            for part in shape
        ]
    )

    points = points @ rotation(rng.uniform(0, 2 * math.pi)).T
    curvature = rng.uniform(0.02, bend)
    x, y = points.T
    points = np.stack(
        [
            (1 / curvature - y) * np.sin(curvature * x),
            1 / curvature - (1 / curvature - y) * np.cos(curvature * x),
        ],
        axis=1,
    )

    for _ in range(3):
        wave = rng.normal(0, 1.2, 2)
        phase = rng.uniform(0, 2 * math.pi)
        points = points + np.sin(points @ wave + phase)[:, None] * rng.normal(0, 0.06, 2)

    factor = math.exp(rng.uniform(-stretch, stretch))
    sheared = np.array([[1.0, rng.uniform(-shear, shear)], [0.0, 1.0]])
    mirror = np.diag([factor * rng.choice([-1.0, 1.0]), 1 / factor])
    points = points @ (rotation(rng.uniform(0, 2 * math.pi)) @ sheared @ mirror).T
    points = points - (points.min(axis=0) + points.max(axis=0)) / 2
    return np.split(points, 8 * np.cumsum([len(part) for part in shape])[:-1])


def rotation(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
