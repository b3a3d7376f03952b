"""The images without a prior that `outputs` asks for, beside those of the posterior."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gadgets.stages.frame import Frame
from gadgets.stages.properties import Properties

logger = logging.getLogger(__name__)

PRIORLESS = ("zero_filled", "classical")  # of `OUTPUTS`


def add_priorless(items: Iterable[Any], properties: Properties) -> Iterator[Any]:
    """Each (Frame, Reconstruction), the frame with its `beside`; anything else passes on.

    Nothing is added to a frame that was not sampled, which is a classical image already.
    """
    wanted = [name for name in properties.outputs if name in PRIORLESS]
    for item in items:
        if wanted and isinstance(item, tuple) and isinstance(item[0], Frame):
            frame, result = item
            if result.info.samples > 0 and not result.info.reason:
                for name in wanted:
                    _add(name, frame, properties)
        yield item


def _add(name: str, frame: Frame, properties: Properties) -> None:
    try:
        frame.beside[name] = _magnitude(name, frame, properties)
    except Exception as error:
        logger.warning("%s has no %s image: %s", frame.identity, name, error)
        logger.debug("%s", frame.identity, exc_info=error)


def _magnitude(name: str, frame: Frame, properties: Properties) -> np.ndarray:
    """Float32 (z, y, x) on the matrix of the image."""
    from scoremri_core.mri.fourier import resample

    image = _zero_filled(frame) if name == "zero_filled" else _classical(frame, properties)
    axes = (0, -2, -1) if frame.is_volume else (-2, -1)
    return np.abs(resample(image, frame.recon_shape, frame.fov_fraction, axes)).astype(np.float32)


def _zero_filled(frame: Frame) -> np.ndarray:
    """With the frame's coil maps; of a volume, which keeps none, the root sum of squares."""
    from scoremri_core.mri.classical import zero_filled
    from scoremri_core.mri.fourier import to_image

    if frame.maps is None:
        coils = to_image(frame.kspace, axes=(-3, -2, -1))
        return np.asarray(np.linalg.norm(coils, axis=0), np.complex64)
    sets = zero_filled(frame.kspace, frame.maps)
    return np.asarray(sets if len(sets) == 1 else np.linalg.norm(sets, axis=0, keepdims=True))


def _classical(frame: Frame, properties: Properties) -> np.ndarray:
    """What would be sent with sampler=none: regularised SENSE."""
    from scoremri_core import reconstruct
    from scoremri_core.volume import reconstruct_volume

    common: dict[str, Any] = {
        "noise_covariance": frame.noise_covariance,
        "sampler": "none",
        "device": properties.device,
    }
    if frame.is_volume:
        common |= {"calibration": frame.calibration, "maps": properties.maps}
        return reconstruct_volume(frame.kspace, **common).mean
    assert frame.maps is not None  # it was sampled with them
    return reconstruct(frame.kspace, maps=frame.maps, **common).mean
