"""Textures and light of the deformed shapes."""

import colorsys
import math

import cv2
import numpy as np
from deformed_shapes_outlines import Shape

SUPERSAMPLE = 4


def coverage(shape: Shape, size: int) -> np.ndarray:
    """Share of each pixel inside the shape, (size, size) float32; pixel (0, 0) spans [0, 1]^2."""
    canvas = np.zeros((size * SUPERSAMPLE, size * SUPERSAMPLE), np.uint8)
    for part in shape:  # one by one: where parts overlap, those of one call would cancel out
        corners = np.round((part * SUPERSAMPLE - 0.5) * 256).astype(np.int32)
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


def hue_of(place: float | None, rng: np.random.Generator) -> float:
    """A hue in [0, 1): usually near that of a class, if it has a place on the circle, else any."""
    if place is None or rng.random() < 0.15:
        return rng.random()
    return rng.normal(place, 0.1) % 1


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
