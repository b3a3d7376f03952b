"""K-space of fewer, virtual coils, with its noise and its calibration lines."""

from __future__ import annotations

from dataclasses import replace

from scoremri_core.isolation import isolated
from scoremri_core.kspace import KSpace
from scoremri_core.mri.coils.compression import CoilCompression, coil_compression
from scoremri_core.mri.noise.covariance import covariance_from_edges
from scoremri_core.recon.memo import Memo


@isolated
def compress(kspace: KSpace, coils: int, memo: Memo | None = None) -> tuple[KSpace, float]:
    """K-space of the virtual coils that keep most of the signal.

    Parameters
    ----------
    kspace : KSpace
        Of a slice or volume. The virtual coils are found from its calibration lines, if it has any
        of a separate scan.
    coils : int
        Number of virtual coils.
    memo : Memo, optional
        Keeps what frames with the same calibration share.

    Returns
    -------
    compressed : KSpace
    loss : float
        Fraction of the signal's energy that is lost.

    Raises
    ------
    InputError
        No virtual coil, or more than there are coils; no noise estimate.
    """
    memo = Memo() if memo is None else memo
    covariance = kspace.noise_covariance
    if covariance is None and not kspace.is_volume:
        covariance = covariance_from_edges(kspace.values, kspace.averages, kspace.mask)
    source = kspace if kspace.calibration is None else kspace.calibration
    known = None if covariance is None else covariance * kspace.unit**2
    key = coils, None if known is None else known.tobytes()

    def find() -> CoilCompression:
        noise = None if known is None else known / source.unit**2
        return coil_compression(source.values, coils, noise, source.mask)

    def lines() -> KSpace:
        return replace(source, values=found.compressed(source.values))

    found = memo.get(source, ("compression", *key), find)
    return (
        replace(
            kspace,
            values=found.compressed(kspace.values),
            noise_covariance=None if covariance is None else found.covariance(covariance),
            calibration=None
            if kspace.calibration is None
            else memo.get(source, ("compressed", *key), lines),
        ),
        found.loss,
    )
