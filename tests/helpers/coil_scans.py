"""Scans with known coil maps, and small scans."""

import numpy as np

from scoremri_core.mri.fourier import to_image, to_kspace

FULLY_SAMPLED = [
    "brain_axial_8ch_256x256.h5",
    "brain_axial_8ch_230x180.h5",
    "brain_ge_4ch_256x256.h5",
    "phantom_7slices_8ch_128x128.h5",
    "phantom_4ch_256x256.h5",
    "head_1ch_512x512.h5",
    "thorax_8ch_semisynthetic.h5",
    "abdomen_8ch_semisynthetic.h5",
]


def simulated_coils(coils, ny, nx):
    """Return smooth complex coil maps (coil, y, x), sum |S|^2 = 1, and the image of an ellipse."""
    y = ((np.arange(ny) - ny // 2) / ny)[:, None]
    x = (np.arange(nx) - nx // 2) / nx
    angles = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    centre_y, centre_x = 0.6 * np.sin(angles), 0.6 * np.cos(angles)
    maps = np.exp(-2 * ((y - centre_y) ** 2 + (x - centre_x) ** 2))
    maps = maps * np.exp(1j * (angles + 2 * y * np.cos(angles) - 2 * x * np.sin(angles)))
    ellipse = (y / 0.42) ** 2 + (x / 0.36) ** 2 < 1
    image = ellipse * (1 + 0.5 * np.cos(40 * y) * np.sin(30 * x)) * np.exp(1j * (y + 2 * x**2))
    return maps / np.linalg.norm(maps, axis=0), image


def central_lines(kspace, lines):
    kept = np.zeros_like(kspace)
    start = kspace.shape[1] // 2 - lines // 2
    kept[:, start : start + lines] = kspace[:, start : start + lines]
    return kept


def similarity(a, b):
    return np.abs(np.sum(a.conj() * b, axis=0))


def aliased(kspace, rows):
    """Return the k-space of a field of view of fewer rows, in which the image aliases."""
    image = to_image(kspace)
    small = np.zeros((len(image), rows, image.shape[2]), complex)
    onto = (np.arange(image.shape[1]) - image.shape[1] // 2 + rows // 2) % rows
    np.add.at(small, (slice(None), onto), image)
    return to_kspace(small).astype(np.complex64)


def object_of(kspace):
    signal = np.linalg.norm(to_image(kspace), axis=0)
    return signal > 0.1 * np.percentile(signal, 99)
