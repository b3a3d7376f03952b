"""Whether arrays hold k-space with DC at its centre, as their energy shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from scoremri_core.errors import InputError

SHORTEST = 16  # samples of an axis: on shorter ones a centre says little
MOST = 0.5  # of the energy lies in the central quarter of k-space
POINT = 0.95  # of the energy, which a point has in one sample
PEAK = 3.0  # energy of the middle partition over the mean of the others: 4 to 15 where seen
EXPECTED = "expected k-space with DC at the centre, index n // 2"


def check_centred(name: str, kspace: npt.NDArray[Any]) -> None:
    """Refuse k-space whose DC is not in the centre, images, and coils in place of partitions.

    Noise alone is none of them, nor is the k-space of a point.

    Parameters
    ----------
    name : for messages
    kspace : complex, (coil, z, y, x)

    Raises
    ------
    InputError
        Naming the axis.
    """
    kspace = np.nan_to_num(kspace)
    peaked = [_check_axis(name, kspace, axis) for axis in (2, 3) if kspace.shape[axis] >= SHORTEST]
    partitions = _profile(kspace, 1)
    middle, count = len(partitions) // 2, len(partitions)
    outer = np.delete(partitions, middle)
    if count > 1 and peaked and all(peaked) and partitions[middle] < PEAK * outer.mean():
        raise InputError(
            f"{name}: the {count} entries of the second phase encoding (z, dimension 2 of BART) "
            "have energy all over, not in the middle one: coils and slices have separate axes"
        )


def _check_axis(name: str, kspace: npt.NDArray[Any], axis: int) -> bool:
    """Whether the energy lies in the middle of an axis; InputError where that shows a mistake."""
    energy = _profile(kspace, axis)
    letter = "zyx"[axis - 1]
    if _is_central(energy):
        return True
    if _is_central(np.fft.fftshift(energy)):
        raise InputError(f"{name}: DC lies at the edge of axis {letter}: {EXPECTED}")
    transformed = _profile(np.fft.fft(kspace, axis=axis), axis)
    point = transformed.max() > POINT * transformed.sum()
    if not point and (_is_central(transformed) or _is_central(np.fft.fftshift(transformed))):
        raise InputError(f"{name}: along axis {letter} it holds an image: {EXPECTED}")
    return False


def _profile(kspace: npt.NDArray[Any], axis: int) -> npt.NDArray[np.float64]:
    """Energy along an axis."""
    others = tuple(i for i in range(kspace.ndim) if i != axis)
    return np.sum(np.abs(kspace).astype(np.float64) ** 2, axis=others)


def _is_central(energy: npt.NDArray[np.float64]) -> bool:
    """Whether most of it lies in the central quarter."""
    near = np.abs(np.arange(len(energy)) - len(energy) // 2) <= len(energy) / 8
    return bool(energy[near].sum() > MOST * energy.sum())
