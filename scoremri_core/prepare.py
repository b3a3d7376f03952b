"""From a request to slices that can be sampled: their noise, coil maps and scale."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scoremri_core.errors import InputError
from scoremri_core.mri.acquired import Box
from scoremri_core.mri.classical import zero_filled
from scoremri_core.mri.coil_maps import estimate_coil_maps
from scoremri_core.mri.fourier import resize
from scoremri_core.noise_model import Covariance, NoiseModel
from scoremri_core.request import Request

logger = logging.getLogger(__name__)

Array = NDArray[np.complex64]
MISPLACED = 100.0  # power at the corners of k-space over that at its centre


@dataclass
class Slice:
    """One slice on its way to the sampler, on the box that its samples reach.

    Attributes
    ----------
    kspace : (coil, y, x).
    number : of the slice in its stack.
    seed : of its samples.
    noise : what is believed of it.
    maps : (set, coil, y, x).
    scale : image value that the prior sees as 1.
    fallback : why it is not sampled, or None.
    samples : (sample, y, x), drawn.
    misfit : mean square of what the samples leave of the measured values, over that of the noise
        in `noise.covariance`.
    mean : (set, y, x), of the samples before their sets are combined.
    trust : (y, x), weight that the likelihood leaves to each sample of k-space, for the line it
        belongs to: 1, or less where that line contradicts the others.
    trusted_misfit : `misfit` of the k-space as it is trusted.
    inconsistent : share of the measured samples that are in lines with far more noise than others.
    left : covariance of what a sample leaves, as far as it is trusted, away from DC, where errors
        of the maps count less.
    """

    kspace: Array
    number: int
    seed: int
    noise: NoiseModel
    maps: Array | None = None
    scale: float = float("nan")
    fallback: str | None = None
    samples: Array | None = None
    misfit: float = float("nan")
    mean: Array | None = None
    trust: NDArray[np.float32] | None = None
    trusted_misfit: float = float("nan")
    inconsistent: float = float("nan")
    left: Covariance | None = None

    def give_up(self, reason: str) -> None:
        """Mark as a slice that cannot be sampled."""
        self.fallback = reason
        logger.warning("classical image instead of samples: %s", reason)


def prepare(request: Request) -> tuple[list[Slice], Box]:
    """Slices with their noise, maps and scale, or the reason why one cannot be sampled."""
    box = Box((request.kspace != 0).any((0, 1)))
    slices = []
    for i, (kspace, seed) in enumerate(zip(request.kspace, request.seeds, strict=True)):
        averages = None if request.averages is None else resize(request.averages[i], box.shape)
        slices.append(Slice(box.kspace(kspace), i, seed, NoiseModel(None, averages)))
        _find_noise(slices[-1], request)
    if request.maps is None:
        blocks = [None if own is None else box.kspace(own) for own in request.calibrations]
        _estimate_maps(slices, blocks, request.sets, str(request.device))
    else:
        for own, known in zip(slices, request.maps, strict=True):
            own.maps = box.maps(known)
            if own.fallback is None:
                own.noise.face_maps(own.kspace, own.maps)
    for own in slices:
        _find_scale(own, None if request.scale is None else request.scale * box.factor)
    return slices, box


def _find_noise(own: Slice, request: Request) -> None:
    """Its noise, or the reason why the k-space cannot be sampled."""
    given, averages = request.noise_covariance, own.noise.averages
    own.noise = NoiseModel(given, averages)
    if not np.isfinite(own.kspace).all():
        own.give_up("k-space holds values that are not finite")
        return
    if _is_misplaced(own.kspace):
        own.give_up("the largest values lie at the corners of k-space: expected DC at its centre")
        return
    # the positions of a volume, whose scale is given, have no edges of their own to compare with
    if given is not None and request.scale is not None:
        return
    try:
        own.noise = NoiseModel.found(own.kspace, given, averages, request.unit)
    except InputError as error:
        own.give_up(str(error))


def _is_misplaced(kspace: Array) -> bool:
    """Whether DC seems to be at the corner: k-space as an FFT gives it, not shifted."""
    power = np.sum(np.abs(kspace) ** 2, axis=0)
    centre = tuple(slice(n // 2 - n // 16, n // 2 + n // 16 + 1) for n in power.shape)
    corners = np.fft.fftshift(power)[centre].sum()
    return bool(corners > MISPLACED * power[centre].sum() and corners > power.sum() / 2)


def _estimate_maps(
    slices: Sequence[Slice], calibrations: Sequence[Array | None], sets: int | str, device: str
) -> None:
    """Coil maps of all slices in one call, or one by one where not all of them have any."""
    pairs = [pair for pair in zip(slices, calibrations, strict=True) if pair[0].fallback is None]
    if not pairs:
        return
    sources = np.stack([own.kspace if block is None else block for own, block in pairs])

    def estimate() -> None:
        covariances = np.stack([np.asarray(own.noise.covariance) for own, _ in pairs])
        maps = estimate_coil_maps(sources, sets, covariances, device=device)
        for (own, _), found in zip(pairs, maps, strict=True):
            # a slice in which nothing folds has no second set, though its neighbour has
            own.maps = found if sets != "auto" or found[-1].any() else found[:1]

    try:
        estimate()
        changed = [own.noise.face_maps(own.kspace, np.asarray(own.maps)) for own, _ in pairs]
        if any(changed):
            estimate()
    except InputError as error:
        if len(pairs) == 1:
            pairs[0][0].give_up(str(error))
            return
        for own, block in pairs:
            _estimate_maps([own], [block], sets, device)


def _find_scale(own: Slice, given: float | None) -> None:
    """The image value that the prior sees as 1, and the least noise that goes with it."""
    if own.fallback is not None or own.maps is None:
        return
    if given is None:
        given = float(np.percentile(np.abs(zero_filled(own.kspace, own.maps[0])), 99))
    own.scale = given
    if not given > 0:
        own.give_up("the image is zero")
        return
    own.noise.keep_to(given)
