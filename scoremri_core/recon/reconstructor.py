"""Reconstruction of a series of frames with a common prior and calibration."""

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

CALIBRATION_ARGUMENTS = ("maps", "calibration", "mask", "noise_covariance", "device", "sampler")


class Reconstructor:
    """Reconstruct the frames of a series.

    The prior is loaded once. After `calibrate`, all frames share its calibration lines, and coil
    maps are estimated again only for frames with another noise covariance; pass `noise_covariance`
    to avoid that.

    Parameters
    ----------
    prior : str or Denoiser
        See `reconstruct`.
    **options
        Other arguments of `reconstruct`, for all frames.

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
        """Coil maps of `calibrate`, (slice, set, coil, y, x), or None."""
        return self._maps

    def calibrate(self, kspace: ArrayLike, **options: Any) -> NDArray[np.complex64]:
        """Use the calibration lines of a frame or a reference scan for all later frames.

        Parameters
        ----------
        kspace : complex array, (coil, y, x) or (slice, coil, y, x)
            On the matrix of the frames.
        **options
            Other arguments of `reconstruct`, such as `calibration`.

        Returns
        -------
        complex64 array, (slice, set, coil, y, x)
            Coil maps.

        Raises
        ------
        InputError
            Coil maps of a slice cannot be estimated.
        """
        arguments = {"maps": "auto", **self._options, **options, "sampler": "none"}
        result = reconstruct(
            kspace, **{name: arguments[name] for name in arguments if name in CALIBRATION_ARGUMENTS}
        )
        maps = np.asarray(result.maps)
        if not np.isfinite(maps).all():
            raise InputError(f"calibration: no coil maps: {result.info.reason}")
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
            Arguments of `reconstruct` for this frame only, such as `seed`.

        Returns
        -------
        Reconstruction

        Raises
        ------
        InputError
            See `reconstruct`.
        """
        arguments = {**self._options, **options}
        if self._calibration is None or "maps" in options or "calibration" in options:
            return reconstruct(kspace, prior=self._prior, **arguments)
        shape = np.shape(kspace)
        if len(shape) == 3 and len(self._calibration) > 1:
            raise InputError(
                f"kspace has shape {shape}: expected (slice, coil, y, x) with the "
                f"{len(self._calibration)} slices of the calibration"
            )
        prior, callback = arguments.pop("prior", self._prior), arguments.pop("callback", None)
        slices, request = read_arguments(kspace, calibration=self._calibration, **arguments)
        result = reconstruct_slices(slices, request, prior, callback=callback, memo=self._memo)
        return result.as_tensors(kspace.device) if isinstance(kspace, Tensor) else result
