"""Augmentation of slices to complex, scanner-like training patches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from scoremri_core.mri.fourier import resize, to_image, to_kspace


def training_patch(
    image: NDArray[Any], size: int, rng: np.random.Generator
) -> NDArray[np.complex64]:
    """Draw a patch (size, size) from a magnitude or complex slice (y, x).

    See `complex_patch` and `measured_patch`.
    """
    return (measured_patch if np.iscomplexobj(image) else complex_patch)(image, size, rng)


def measured_patch(
    image: NDArray[np.complex64], size: int, rng: np.random.Generator
) -> NDArray[np.complex64]:
    """Draw a training patch from a complex slice, keeping its phase, contrast and noise.

    Resolution, orientation, position and intensity are random, and a mild smooth phase is added.

    Parameters
    ----------
    image : complex64 array, (y, x)
        99th percentile of the magnitude 1.
    size : int
        Side of the patch in pixels; smaller slices are zero-padded.
    rng : numpy.random.Generator

    Returns
    -------
    complex64 array, (size, size)
        Values of order 1.
    """
    phase = _smooth_field(image.shape, rng, rng.exponential(0.2)) + rng.uniform(0, 2 * np.pi)
    x = (image * np.exp(1j * phase)).astype(np.complex64)
    return _placed(x, [rng.uniform(_smallest_zoom(x), 1)] * 2, size, rng)


def complex_patch(
    magnitude: NDArray[np.float16], size: int, rng: np.random.Generator
) -> NDArray[np.complex64]:
    """Draw a complex training patch from a magnitude slice.

    Contrast, shading, phase, resolution (by k-space cropping), orientation, position, intensity and
    weak complex noise are random.

    Parameters
    ----------
    magnitude : float16 array, (y, x)
        99th percentile 1.
    size : int
        Side of the patch in pixels; smaller slices are zero-padded.
    rng : numpy.random.Generator

    Returns
    -------
    complex64 array, (size, size)
        Values of order 1.
    """
    image = magnitude.astype(np.float32)
    if rng.random() < 0.5:
        image = image ** np.float32(rng.uniform(0.7, 1.4))
    elif rng.random() < 0.5:
        image = _other_contrast(image, rng)
    shading = np.exp(_smooth_field(image.shape, rng, rng.uniform(0, 0.25)))
    x = (image * shading * np.exp(1j * _phase(image, rng))).astype(np.complex64)

    smallest = _smallest_zoom(x)
    zoom = rng.uniform(smallest, 1.0, 2) if rng.random() < 0.3 else [rng.uniform(smallest, 1)] * 2
    x = _placed(x, zoom, size, rng)
    level = 10 ** rng.uniform(-3.5, -2)
    noise = rng.standard_normal((2, size, size), dtype=np.float32)
    return (x + np.float32(level) * (noise[0] + 1j * noise[1])).astype(np.complex64)


def scanned_image(
    image: NDArray[Any], size: int, rng: np.random.Generator
) -> NDArray[np.complex64]:
    """Simulate the image of a scan of a whole slice.

    Keeps the contrast of the slice; k-space is cropped if the slice has more pixels.

    Parameters
    ----------
    image : real or complex array, (y, x)
        The phase of magnitudes is random.
    size : int
        Side of the image in pixels.
    rng : numpy.random.Generator

    Returns
    -------
    complex64 array, (size, size)
    """
    x = image
    if not np.iscomplexobj(x):
        x = image.astype(np.float32)
        x = x * np.exp(1j * _phase(x, rng))
    zoom = min(1.0, size / max(x.shape))
    return resize(_resampled(x.astype(np.complex64), [zoom, zoom]), (size, size))


def _smallest_zoom(x: NDArray[np.complex64]) -> float:
    # native pixels are 0.5 to 1 mm, scans are 0.8 to 2 mm
    return min(1.0, 140 / min(x.shape))


def _placed(
    x: NDArray[np.complex64], zoom: Iterable[float], size: int, rng: np.random.Generator
) -> NDArray[np.complex64]:
    """Resample by k-space cropping and draw position, orientation and intensity."""
    x = _random_crop(_resampled(x, zoom), size, rng)
    if rng.random() < 0.5:
        x = x.T
    x = x[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))]
    return (x * np.exp(rng.normal(0, 0.2))).astype(np.complex64)


def _resampled(x: NDArray[np.complex64], zoom: Iterable[float]) -> NDArray[np.complex64]:
    """Resample the same field of view to fewer pixels."""
    shape = [max(8, round(n * z)) for n, z in zip(x.shape, zoom, strict=True)]
    if shape == list(x.shape):
        return x
    return to_image(resize(to_kspace(x), shape)) * np.float32(np.sqrt(np.prod(shape) / x.size))


def _random_crop(
    x: NDArray[np.complex64], size: int, rng: np.random.Generator
) -> NDArray[np.complex64]:
    """Draw a size x size window, in up to four tries for one with tissue."""
    x = resize(x, [max(size, n) for n in x.shape])
    for _ in range(4):
        top, left = (rng.integers(0, n - size + 1) for n in x.shape)
        patch = x[top : top + size, left : left + size]
        if np.mean(np.abs(patch) > 0.15) > 0.3:
            break
    return patch


def _other_contrast(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Map grey values by a random curve through zero, like another contrast weighting."""
    knots = np.array((0, 0.25, 0.5, 0.75, 1.0, 1.5, 8))
    values = np.cumsum(rng.normal(0.2, 0.35, knots.size - 1))
    values = np.abs(np.concatenate(([0], values)))
    values[-1] = values[-2]
    return np.interp(image, knots, values / max(0.5, values[:-1].max())).astype(np.float32)


def _phase(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a phase of coils and shim, echo position and, with probability 0.8, anatomy."""
    phase = _smooth_field(image.shape, rng, rng.exponential(0.8))
    phase += _ramp(image.shape, rng, rng.exponential(2.0)) + rng.uniform(0, 2 * np.pi)
    if rng.random() < 0.8:
        phase += rng.uniform(0.2, 1.5) * _tissue_phase(image, rng)
    return phase


def _smooth_field(
    shape: tuple[int, ...], rng: np.random.Generator, sd: float, order: int = 5
) -> NDArray[np.float32]:
    """Draw a sum of low-order cosines of mean zero, with a spectrum that falls with the order."""
    k = np.arange(order)
    weights = rng.standard_normal((order, order)) / (1 + k[:, None] ** 2 + k[None, :] ** 2)
    weights[0, 0] = 0
    y, x = (np.cos(np.pi * np.outer(np.linspace(0, 1, n), k)) for n in shape)
    return (sd * 2 * (y @ weights @ x.T)).astype(np.float32)


def _tissue_phase(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a phase that follows the anatomy, in radians.

    Models fat off resonance, flow, and susceptibility of veins, iron and air: the deviation of
    measured scans from a smooth phase (about 0.15 rad, smoothed over 8 pixels).
    """
    blurred = gaussian_filter(image, rng.uniform(0.4, 1.0))
    around = gaussian_filter(blurred, rng.uniform(1.0, 3.0))
    head = gaussian_filter((around > 0.06).astype(np.float32), rng.uniform(2.0, 6.0))
    knots = np.array((0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5))
    features = (
        (0.2, np.interp(blurred, knots, rng.standard_normal(knots.size))),  # tissues
        (0.6, (blurred - around) / (around + 0.1)),  # veins, sulci
        (0.8, np.clip(2 - 2 * head, 0, 1)),  # fat
    )
    phase = np.zeros(image.shape, np.float32)
    for strength, feature in features:
        # varies over the image
        weight = rng.normal(0, strength) + _smooth_field(image.shape, rng, strength / 2)
        phase += (weight * feature).astype(np.float32)
    y, x = (np.linspace(-1, 1, n) for n in image.shape)
    for _ in range(rng.integers(0, 4)):
        width, top, left = rng.uniform(0.03, 0.15), *rng.uniform(-0.8, 0.8, 2)
        bump = np.outer(np.exp(-(((y - top) / width) ** 2)), np.exp(-(((x - left) / width) ** 2)))
        phase += (rng.normal(0, 1.5) * bump).astype(np.float32)
    return phase


def _ramp(shape: tuple[int, ...], rng: np.random.Generator, sd: float) -> NDArray[np.float32]:
    """Draw the linear phase of an echo off the centre of k-space (sd in radians over the field)."""
    y, x = (np.linspace(-1, 1, n) * rng.normal(0, sd) for n in shape)
    return (y[:, None] + x[None, :]).astype(np.float32)
