"""Two sets of coil maps, for objects that alias because the field of view is too small.

Pixels in which two parts of the object overlap have two eigenvectors with eigenvalue 1 (see
`scoremri_core.mri.coils.espirit`). All functions take NumPy or CuPy arrays, and the module as `xp`.
"""

from __future__ import annotations

from typing import Any

TAPER = (0.7, 0.9)  # second eigenvalues of weight 0 and 1
ALIASED_EIGENVALUE = 0.95  # second eigenvalue above which a pixel is aliased
ALIASED_FRACTION = 0.025  # of the object's pixels, above which two sets are needed
RATIO_POWER = 50  # of the ratio of eigenvalues, in the weight of the second set


def aliases(second: Any, signal: Any) -> Any:
    """Return which slices are aliased and need a second set.

    Parameters
    ----------
    second : real array, (slice, y, x)
        Second eigenvalues.
    signal : real array, (slice, y, x)
        Signal of the object, zero in the background.

    Returns
    -------
    bool array, (slice,)
    """
    aliased = (second > ALIASED_EIGENVALUE) & (signal > 0)
    return aliased.sum(axis=(1, 2)) > ALIASED_FRACTION * (signal > 0).sum(axis=(1, 2))


def align(maps: Any, values: Any, virtual_coil: Any, xp: Any) -> Any:
    """Rotate two sets within their span, so that they vary smoothly in space.

    If both eigenvalues are close to 1, noise determines the eigenvectors within their span, and
    they jump between pixels. Set 0 becomes the projection of the virtual coil onto the span; sets
    with different eigenvalues hardly rotate.

    Parameters
    ----------
    maps : complex array, (slice, 2, coil, y, x)
        Orthonormal in each pixel.
    values : real array, (slice, 2, y, x)
        Eigenvalues.
    virtual_coil : complex array, (slice, coil)
    xp : module

    Returns
    -------
    complex array, (slice, 2, coil, y, x)
    """
    parts = (maps.conj() * virtual_coil[:, None, :, None, None]).sum(axis=2)
    ratio = xp.maximum(values[:, 1], 0) / xp.maximum(values[:, 0], 1e-6)
    parts[:, 1] *= ratio**RATIO_POWER
    length = xp.sqrt((xp.abs(parts) ** 2).sum(axis=1))
    a, b = xp.moveaxis(parts / xp.maximum(length, 1e-6)[:, None], 1, 0)[:, :, None]
    return xp.stack(
        [maps[:, 0] * a + maps[:, 1] * b, maps[:, 1] * a.conj() - maps[:, 0] * b.conj()], axis=1
    )


def taper(second: Any, xp: Any) -> Any:
    """Compute the weight of the second set, 0 to 1, from its eigenvalues.

    Parameters
    ----------
    second : real array, (slice, y, x)
        Second eigenvalues.
    xp : module

    Returns
    -------
    real array, (slice, y, x)
    """
    low, high = TAPER
    return xp.clip((second - low) / (high - low), 0, 1)
