"""Two sets of coil maps: where they are needed, how they are told apart, where the second fades.

Where two parts of the object fold onto each other a pixel has two eigenvectors of eigenvalue 1 (see
`scoremri_core.mri.coils.maps`).  All functions take NumPy or CuPy arrays, and its module as `xp`.
"""

from __future__ import annotations

from typing import Any

SECOND_EIGENVALUES = (0.7, 0.9)  # weight 0 below, 1 above
FOLDED_EIGENVALUE = 0.95  # of a second set, where two parts of the object fold
FOLDED_SHARE = 0.025  # of the object with such a second eigenvalue: above it two sets are needed
ALIKE = 50  # power of the eigenvalues' ratio that says how alike two sets are


def aliases(second: Any, signal: Any) -> Any:
    """Which slices need a second set, (slice,).

    Parameters
    ----------
    second : (slice, y, x), second eigenvalues.
    signal : (slice, y, x), of the object there; zero in the background.
    """
    folded = (second > FOLDED_EIGENVALUE) & (signal > 0)
    return folded.sum(axis=(1, 2)) > FOLDED_SHARE * (signal > 0).sum(axis=(1, 2))


def align(maps: Any, values: Any, virtual_coil: Any, xp: Any) -> Any:
    """Two sets turned within the space that they span, so that they change smoothly in space.

    Where both eigenvalues are near 1, which combinations are the eigenvectors is a matter of the
    noise and jumps from pixel to pixel, and so would both images.  There set 0 becomes what of
    the virtual coil lies in the space; where the second eigenvalue is less it hardly turns.

    Parameters
    ----------
    maps : (slice, 2, coil, y, x), orthonormal in each pixel.
    values : (slice, 2, y, x), their eigenvalues.
    virtual_coil : (slice, coil).
    """
    parts = (maps.conj() * virtual_coil[:, None, :, None, None]).sum(axis=2)
    ratio = xp.maximum(values[:, 1], 0) / xp.maximum(values[:, 0], 1e-6)
    parts[:, 1] *= ratio**ALIKE
    length = xp.sqrt((xp.abs(parts) ** 2).sum(axis=1))
    a, b = xp.moveaxis(parts / xp.maximum(length, 1e-6)[:, None], 1, 0)[:, :, None]
    return xp.stack(
        [maps[:, 0] * a + maps[:, 1] * b, maps[:, 1] * a.conj() - maps[:, 0] * b.conj()], axis=1
    )


def taper(second: Any, xp: Any) -> Any:
    """Weight of the second set where its eigenvalue is `second`: 1, and 0 where it is too low."""
    low, high = SECOND_EIGENVALUES
    return xp.clip((second - low) / (high - low), 0, 1)
