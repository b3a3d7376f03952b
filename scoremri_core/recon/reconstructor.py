"""Many frames with one prior, and with calibration lines that serve all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from scoremri_core.errors import InputError
from scoremri_core.isolation import isolated
from scoremri_core.kspace import KSpace
from scoremri_core.priors import Denoiser
from scoremri_core.recon.memo import Memo
from scoremri_core.recon.reconstruction import read_arguments, reconstruct, reconstruct_slices
from scoremri_core.recon.result import Reconstruction
from scoremri_core.samplers.registry import find_sampler


class Reconstructor:
    """`reconstruct` for the frames of a series: the prior is loaded once, coil maps are kept.

    Without `calibrate`, each frame is reconstructed as `reconstruct` does it alone. After it, the
    calibration lines serve all frames, as in a scan whose coils and slices stay. Coil maps are
    estimated once, or again for a frame with other noise: give `noise_covariance` to save that.

    Parameters
    ----------
    prior : str or Denoiser
        As `reconstruct` takes it.
    **options
        Further arguments of `reconstruct` that all frames share.

    Raises
    ------
    InputError
        The prior cannot be loaded.

    Examples
    --------
    >>> reconstructor = Reconstructor(samples=4)            # doctest: +SKIP
    >>> reconstructor.calibrate(frames[0])                  # doctest: +SKIP
    >>> results = [reconstructor(frame) for frame in frames]  # doctest: +SKIP
    """

    @isolated
    def __init__(self, *, prior: str | Denoiser = "default", **options: Any) -> None:
        """Load the prior."""
        self._options = options
        loaded = find_sampler(options.get("sampler", "posterior"), None, {}).prior(prior)
        self._prior = prior if loaded is None else loaded
        self._calibration: list[KSpace] | None = None
        self._maps: NDArray[np.complex64] | None = None
        self._memo = Memo()

    @property
    def maps(self) -> NDArray[np.complex64] | None:
        """The coil maps of `calibrate`, (slice, set, coil, y, x); None before it."""
        return self._maps

    def calibrate(self, kspace: ArrayLike, **options: Any) -> NDArray[np.complex64]:
        """Keep the calibration lines of a frame, or of a reference scan, and estimate coil maps.

        Parameters
        ----------
        kspace : complex array, (coil, y, x) or (slice, coil, y, x)
            On the matrix of the frames to come.
        **options
            Further arguments of `reconstruct`, such as `calibration`.

        Returns
        -------
        complex64 array, (slice, set, coil, y, x)

        Raises
        ------
        InputError
            A slice without maps, saying why.
        """
        asked = {"maps": "auto", **self._options, **options, "sampler": "none"}
        shared = {name: asked[name] for name in asked if name in _OF_MAPS}
        found = reconstruct(kspace, **shared)
        maps = np.asarray(found.maps)
        if not np.isfinite(maps).all():
            raise InputError(f"calibration: no coil maps: {found.info.reason}")
        lines = options.get("calibration")
        self._calibration = KSpace.stack(
            kspace if lines is None else lines, mask=options.get("mask")
        )
        self._maps = maps
        return maps

    @isolated
    def __call__(self, kspace: ArrayLike, **options: Any) -> Reconstruction:
        """Reconstruct a frame.

        Parameters
        ----------
        kspace : complex array, (coil, y, x) or (slice, coil, y, x)
        **options
            Arguments of `reconstruct` for this frame alone, such as `seed`.
        """
        asked = {**self._options, **options}
        if self._calibration is None or "maps" in options or "calibration" in options:
            return reconstruct(kspace, prior=self._prior, **asked)
        shape = np.shape(kspace)
        if len(shape) == 3 and len(self._calibration) > 1:
            raise InputError(
                f"k-space of one slice, the kept calibration is of {len(self._calibration)}: "
                "expected (slice, coil, y, x)"
            )
        prior, callback = asked.pop("prior", self._prior), asked.pop("callback", None)
        slices, request = read_arguments(kspace, calibration=self._calibration, **asked)
        result = reconstruct_slices(slices, request, prior, callback=callback, memo=self._memo)
        return result.as_tensors(kspace.device) if isinstance(kspace, Tensor) else result


_OF_MAPS = ("maps", "calibration", "mask", "noise_covariance", "device", "sampler")
