"""Coil compression of k-space together with its noise and calibration lines."""

from __future__ import annotations

from dataclasses import replace

from scoremri_core.isolation import isolated
from scoremri_core.kspace import KSpace
from scoremri_core.mri.coils.compression import CoilCompression, coil_compression
from scoremri_core.mri.noise.covariance import covariance_from_edges
from scoremri_core.recon.memo import Memo


@isolated
def compress(kspace: KSpace, coils: int, memo: Memo | None = None) -> tuple[KSpace, float]:
    """Compress k-space to virtual coils.

    Parameters
    ----------
    kspace : KSpace
        A slice or volume. A separate calibration scan, if any, determines the virtual coils.
    coils : int
        Number of virtual coils.
    memo : Memo, optional
        Cache of the compression of frames with the same calibration.

    Returns
    -------
    compressed : KSpace
    loss : float
        Lost fraction of the signal energy.

    Raises
    ------
    InputError
        `coils` is below 1 or above the number of coils, or the noise cannot be estimated.
    """
    memo = Memo() if memo is None else memo
    covariance = kspace.noise_covariance
    if covariance is None and not kspace.is_volume:
        covariance = covariance_from_edges(kspace.values, kspace.averages, kspace.mask)
    calibration = kspace.calibration
    source = kspace if calibration is None else calibration
    measured = None if covariance is None else covariance * kspace.unit**2
    key = coils, None if measured is None else measured.tobytes()

    def find() -> CoilCompression:
        noise = None if measured is None else measured / source.unit**2
        return coil_compression(source.values, coils, noise, source.mask)

    compression = memo.get(source, ("compression", *key), find)
    if calibration is not None:
        calibration = memo.get(
            source,
            ("compressed", *key),
            lambda: replace(source, values=compression.compressed(source.values)),
        )
    compressed = replace(
        kspace,
        values=compression.compressed(kspace.values),
        noise_covariance=None if covariance is None else compression.covariance(covariance),
        calibration=calibration,
    )
    return compressed, compression.loss
