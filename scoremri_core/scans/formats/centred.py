"""Check that arrays are k-space with DC at the centre, by the distribution of energy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from scoremri_core.errors import InputError

MIN_SAMPLES = 16  # of an axis to check
MIN_CENTRAL = 0.5  # fraction of the energy in the central quarter of k-space
POINT = 0.95  # fraction of the energy in one pixel of the image of a point
MIN_PEAK = 3.0  # energy of the middle partition over the mean of the others, 4 to 15 in scans
EXPECTED = "expected k-space with DC at the centre, index n // 2"


def check_centred(name: str, kspace: npt.NDArray[Any]) -> None:
    """Raise InputError for k-space with DC at the edge, images, and coils along the partitions.

    Pure noise and the k-space of a point are valid.

    Parameters
    ----------
    name : str
        For messages.
    kspace : complex array, (coil, z, y, x)

    Raises
    ------
    InputError
        Naming the axis.
    """
    kspace = np.nan_to_num(kspace)
    peaked = [
        _check_axis(name, kspace, axis) for axis in (2, 3) if kspace.shape[axis] >= MIN_SAMPLES
    ]
    partitions = _profile(kspace, 1)
    middle, count = len(partitions) // 2, len(partitions)
    outer = np.delete(partitions, middle)
    if count > 1 and peaked and all(peaked) and partitions[middle] < MIN_PEAK * outer.mean():
        raise InputError(
            f"{name}: the {count} entries of the second phase encoding (z, dimension 2 of BART) "
            "all have energy, not mainly the middle one: coils and slices have separate axes"
        )


def _check_axis(name: str, kspace: npt.NDArray[Any], axis: int) -> bool:
    """Whether the energy is central along an axis; InputError for DC at the edge or an image."""
    energy = _profile(kspace, axis)
    letter = "zyx"[axis - 1]
    if _is_central(energy):
        return True
    if _is_central(np.fft.fftshift(energy)):
        raise InputError(f"{name}: DC is at the edge of axis {letter}: {EXPECTED}")
    transformed = _profile(np.fft.fft(kspace, axis=axis), axis)
    point = transformed.max() > POINT * transformed.sum()
    if not point and (_is_central(transformed) or _is_central(np.fft.fftshift(transformed))):
        raise InputError(f"{name}: axis {letter} is of an image: {EXPECTED}")
    return False


def _profile(kspace: npt.NDArray[Any], axis: int) -> npt.NDArray[np.float64]:
    """Return the energy along an axis."""
    others = tuple(i for i in range(kspace.ndim) if i != axis)
    return np.sum(np.abs(kspace).astype(np.float64) ** 2, axis=others)


def _is_central(energy: npt.NDArray[np.float64]) -> bool:
    """Whether most energy is in the central quarter."""
    near = np.abs(np.arange(len(energy)) - len(energy) // 2) <= len(energy) / 8
    return bool(energy[near].sum() > MIN_CENTRAL * energy.sum())
