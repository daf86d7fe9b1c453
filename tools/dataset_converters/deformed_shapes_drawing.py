"""Outlines, textures and light of the deformed shapes."""

import colorsys
import math

import cv2
import numpy as np

SUPERSAMPLE = 4


# --------------------------------------------------------------------------------------- outlines
# Each returns the (N, 2) corners of one closed outline without holes, about 2 units across.


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


OUTLINES = dict(star=star, crescent=crescent, fish=fish)


def distractor(rng: np.random.Generator) -> np.ndarray:
    """Outline of an object of no class: a regular polygon, an ellipse or a thick stroke."""
    if rng.random() < 0.3:
        x = np.linspace(-1, 1, 20)
        y = 0.3 * np.sin(x * rng.uniform(1, 4) + rng.uniform(0, 6))
        width = rng.uniform(0.06, 0.2)
        return np.concatenate([np.stack([x, y + width], 1), np.stack([x, y - width], 1)[::-1]])
    corners = int(rng.choice([4, 4, 6, 40]))
    angle = 2 * math.pi * np.arange(corners) / corners
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * [1, rng.uniform(0.35, 1)]


def deform(outline: np.ndarray, rng: np.random.Generator, bend: float = 0.5) -> np.ndarray:
    """Bend (by a curvature up to ``bend``), warp, stretch, shear, mirror and rotate an outline."""
    # Points along the edges, so that straight edges can bend.
    t = np.linspace(0, 1, 8, endpoint=False)[None, :, None]
    following = np.roll(outline, -1, axis=0)
    points = ((1 - t) * outline[:, None] + t * following[:, None]).reshape(-1, 2)

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

    stretch = math.exp(rng.uniform(-0.25, 0.25))
    shear = np.array([[1.0, rng.uniform(-0.4, 0.4)], [0.0, 1.0]])
    mirror = np.diag([stretch * rng.choice([-1.0, 1.0]), 1 / stretch])
    points = points @ (rotation(rng.uniform(0, 2 * math.pi)) @ shear @ mirror).T
    return points - (points.min(axis=0) + points.max(axis=0)) / 2


def rotation(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


# ----------------------------------------------------------------------------------------- pixels


def coverage(points: np.ndarray, size: int) -> np.ndarray:
    """Share of each pixel inside the outline, (size, size) float32; pixel (0, 0) spans [0, 1]^2."""
    canvas = np.zeros((size * SUPERSAMPLE, size * SUPERSAMPLE), np.uint8)
    corners = np.round((points * SUPERSAMPLE - 0.5) * 256).astype(np.int32)
    cv2.fillPoly(canvas, [corners], 255, shift=8)
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def fractal_noise(rng: np.random.Generator, size: int, exponent: float) -> np.ndarray:
    """Noise of amplitude 1 / frequency**exponent, as in photographs; mean 0, deviation 1."""
    freq = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    freq[0, 0] = 1
    spectrum = np.fft.rfft2(rng.normal(size=(size, size))) / freq**exponent
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(size, size))
    return (noise / noise.std()).astype(np.float32)


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Muted gradient, fractal colour noise and soft blobs, (size, size, 3) in [0, 1]."""
    yy, xx = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
    angle = rng.uniform(0, 2 * math.pi)
    ramp = (0.5 + xx * math.cos(angle) + yy * math.sin(angle))[..., None]
    image = ramp * rng.uniform(0.1, 0.9, 3) + (1 - ramp) * rng.uniform(0.1, 0.9, 3)
    exponent = rng.uniform(0.9, 1.6)
    image += fractal_noise(rng, size, exponent)[..., None] * rng.uniform(0.04, 0.14)
    image += fractal_noise(rng, size, 1.5)[..., None] * rng.normal(0, 0.05, 3)
    for _ in range(rng.integers(2, 7)):
        x, y = rng.uniform(-0.5, 0.5, 2)
        blob = np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / rng.uniform(0.03, 0.2) ** 2)[..., None]
        image += blob * rng.normal(0, 0.15, 3)
    grey = image.mean(axis=2, keepdims=True)
    return np.clip(0.3 * image + 0.7 * grey, 0, 1).astype(np.float32)


def hue_of(category: int, rng: np.random.Generator) -> float:
    """A hue in [0, 1): usually near that of the category (from 1 on), else any."""
    if rng.random() < 0.15:
        return rng.random()
    return rng.normal((category - 1) / len(OUTLINES), 0.1) % 1


def texture(rng: np.random.Generator, size: int, hue: float | None) -> np.ndarray:
    """A pattern in two similar colours of a hue, or greyish without one, (size, size, 3)."""
    if hue is None:
        saturation, value = rng.uniform(0, 0.25), rng.uniform(0.2, 0.8)
    else:
        saturation, value = rng.uniform(0.6, 1), rng.uniform(0.6, 1)
    colour = np.array(colorsys.hsv_to_rgb(rng.random() if hue is None else hue, saturation, value))
    other = np.clip(colour + rng.normal(0, 0.1, 3), 0, 1)
    yy, xx = np.mgrid[:size, :size].astype(np.float32)
    angle, period = rng.uniform(0, math.pi), rng.uniform(4, 14)
    u = xx * math.cos(angle) + yy * math.sin(angle)
    v = yy * math.cos(angle) - xx * math.sin(angle)
    wobble = 2 * fractal_noise(rng, size, 1.5)
    kind = rng.choice(4, p=[0.15, 0.15, 0.2, 0.5])
    if kind == 0:  # stripes
        pattern = 0.5 + 0.5 * np.sin((u + wobble) * 2 * math.pi / period)
    elif kind == 1:  # dots
        pattern = (
            np.sin((u + wobble) * 2 * math.pi / period) * np.sin(v * 2 * math.pi / period) > 0.2
        )
    elif kind == 2:  # mottled
        pattern = 0.5 + 0.4 * fractal_noise(rng, size, 1.0)
    else:  # plain
        pattern = 0.5 + 0.1 * wobble
    pattern = np.clip(pattern, 0, 1).astype(np.float32)[..., None]
    return pattern * colour + (1 - pattern) * other


def paint(
    image: np.ndarray,
    alpha: np.ndarray,
    light: np.ndarray,
    rng: np.random.Generator,
    hue: float | None = None,
) -> None:
    """Paint a textured, shaded object with a drop shadow over the image, in place."""
    size = len(image)
    distance = rng.uniform(0.01, 0.04) * size
    shift = np.float32([[1, 0, -distance * light[0]], [0, 1, -distance * light[1]]])
    shadow = cv2.GaussianBlur(cv2.warpAffine(alpha, shift, (size, size)), (0, 0), 0.015 * size)
    image *= (1 - rng.uniform(0.15, 0.5) * shadow)[..., None]

    # The blurred silhouette stands for the height of a rounded surface.
    height = cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.012, 0.03) * size)
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / 8)
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / 8)
    shade = 1 - rng.uniform(2, 5) * (slope_x * light[0] + slope_y * light[1])
    surface = texture(rng, size, hue) * np.clip(shade, 0.4, 1.6)[..., None]
    image += alpha[..., None] * (np.clip(surface, 0, 1) - image)


def photograph(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Uneven lighting, defocus, exposure and sensor noise; returns uint8."""
    size = len(image)
    yy, xx = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
    x, y = rng.uniform(-0.4, 0.4, 2)
    image = image * (1 - rng.uniform(0, 0.8) * ((xx - x) ** 2 + (yy - y) ** 2))[..., None]
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.8))
    image = np.clip(image, 0, 1) ** rng.uniform(0.75, 1.3)
    sigma = rng.uniform(0.005, 0.03)
    image = image + rng.normal(0, sigma, image.shape)
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
