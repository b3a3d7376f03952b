"""Sensitivities of receive coils around the head phantom."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

STRIP_MM = 15.0  # width of the conductor


def loop_sensitivities(
    y: npt.NDArray[Any], x: npt.NDArray[Any], z: float, coils: int
) -> npt.NDArray[Any]:
    """Compute the sensitivities of circular loops around the head by the Biot-Savart law.

    Parameters
    ----------
    y, x : float array, (y,) and (x,)
        Coordinates of rows and columns in mm.
    z : float
        Height of the slice in mm.
    coils : int
        Number of loops, evenly around the head, alternating above and below z = 0.

    Returns
    -------
    complex64 array, (coil, y, x)
        Bx - i By of a unit current, normalised to sum |S|^2 = 1.
    """
    turn = np.linspace(0, 2 * np.pi, 33)[:-1]
    points = np.stack(np.broadcast_arrays(x[None], y[:, None], np.float64(z)), axis=-1)
    maps = np.zeros((coils, len(y), len(x)), complex)
    loop = np.clip(1.3 * np.pi * 120 / coils, 28, 85)
    for coil, angle in enumerate(2 * np.pi * (np.arange(coils) + 0.5) / coils):
        middle = np.array([118 * np.cos(angle), 136 * np.sin(angle), 25 * (-1) ** coil])
        across, up = np.array([-np.sin(angle), np.cos(angle), 0]), np.array([0, 0, 1])
        for t in turn:
            wire = middle + loop * (np.cos(t) * across + np.sin(t) * up)
            element = -np.sin(t) * across + np.cos(t) * up
            away = points - wire
            field = (
                np.cross(element, away)
                / (np.sum(away**2, axis=-1, keepdims=True) + STRIP_MM**2) ** 1.5
            )
            maps[coil] += field[..., 0] - 1j * field[..., 1]
    return (maps / np.linalg.norm(maps, axis=0)).astype(np.complex64)
