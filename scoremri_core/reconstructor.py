"""Many frames with one prior, and with coil maps that are kept from frame to frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scoremri_core.errors import InputError
from scoremri_core.priors import Denoiser
from scoremri_core.reconstruction import reconstruct
from scoremri_core.result import Reconstruction
from scoremri_core.samplers.registry import find_sampler


class Reconstructor:
    """`reconstruct` for the frames of a series: the prior is read once, coil maps are kept.

    Without `calibrate`, each frame is reconstructed as `reconstruct` does it alone.  After it,
    the maps of the calibration serve all frames, as in a scan whose coils and slices stay.

    Parameters
    ----------
    prior : as `reconstruct` takes it.
    options : further arguments of `reconstruct` that all frames share.

    Raises
    ------
    InputError : a prior that cannot be loaded; maps or k-space among the options.

    Examples
    --------
    >>> reconstructor = Reconstructor(samples=4)            # doctest: +SKIP
    >>> reconstructor.calibrate(frames[0])                  # doctest: +SKIP
    >>> results = [reconstructor(frame) for frame in frames]  # doctest: +SKIP
    """

    def __init__(self, *, prior: str | Denoiser = "default", **options: Any) -> None:
        """Load the prior."""
        self._options = options
        loaded = find_sampler(options.get("sampler", "posterior"), None, {}).prior(prior)
        self._prior = prior if loaded is None else loaded
        self._maps: NDArray[np.complex64] | None = None

    @property
    def maps(self) -> NDArray[np.complex64] | None:
        """The coil maps that are kept, (slice, set, coil, y, x); None before `calibrate`."""
        return self._maps

    def calibrate(self, kspace: ArrayLike, **options: Any) -> NDArray[np.complex64]:
        """Estimate the coil maps of a frame, or of a reference scan, and keep them.

        Parameters
        ----------
        kspace : like that of `reconstruct`, on the matrix of the frames to come.
        options : further arguments of `reconstruct`, such as `calibration`.

        Returns
        -------
        The maps, (slice, set, coil, y, x).

        Raises
        ------
        InputError : a slice without maps, saying why.
        """
        asked = {"maps": "auto", **self._options, **options, "sampler": "none"}
        shared = {name: asked[name] for name in asked if name in _OF_MAPS}
        found = reconstruct(kspace, **shared)
        maps = np.asarray(found.maps)
        if not np.isfinite(maps).all():
            raise InputError(f"calibration: no coil maps: {found.info.reason}")
        self._maps = maps
        return maps

    def __call__(self, kspace: ArrayLike, **options: Any) -> Reconstruction:
        """Reconstruct a frame, (coil, y, x) or (slice, coil, y, x).

        Parameters
        ----------
        options : arguments of `reconstruct` for this frame alone, such as `seed`.
        """
        asked = {**self._options, **options}
        if self._maps is not None and "maps" not in options:
            single = np.ndim(kspace) == 3
            if single and len(self._maps) > 1:
                raise InputError(
                    f"k-space of one slice, the kept coil maps are of {len(self._maps)}: expected "
                    "(slice, coil, y, x)"
                )
            asked["maps"] = self._maps[0] if single else self._maps
        return reconstruct(kspace, prior=self._prior, **asked)


_OF_MAPS = ("maps", "calibration", "mask", "noise_covariance", "device", "sampler")
