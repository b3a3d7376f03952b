"""Frames to frames with their reconstruction."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from gadgets.frame import Frame
from gadgets.properties import Properties

if TYPE_CHECKING:
    from scoremri_core import Reconstruction

logger = logging.getLogger(__name__)


def posterior(batches: Iterable[list[Any]], properties: Properties) -> Iterator[Any]:
    """Sample the frames that wait, those of one shape and noise as one batch.

    A frame with a problem, and one that turns out to have one, comes with the best classical
    image and the reason.

    Parameters
    ----------
    batches : lists of frames and whatever else the stream holds, in its order.
    properties : of the node.

    Yields
    ------
    (Frame, Reconstruction) on the matrix of the image, or an item that is not a frame.
    """
    prior = _prior(properties)
    for items in batches:
        for alike, group in groupby(items, _alike):
            together = list(group)
            if alike is None:
                yield from together
                continue
            for frame, result in zip(together, _sampled(together, properties, prior), strict=True):
                resized = result.resized(frame.recon_shape, frame.fov_fraction)
                _log(frame, resized)
                yield frame, resized


def _alike(item: Any) -> tuple[Any, ...] | None:
    """Key that frames of one batch share."""
    if not isinstance(item, Frame):
        return None
    alone = item.index if item.problem is not None else -1
    maps = None if item.maps is None else item.maps.shape
    return item.kspace.shape, maps, id(item.noise_covariance), alone


def _prior(properties: Properties) -> Any:
    """The prior, loaded before the first frame is there."""
    if properties.sampler == "none":
        return properties.prior
    from scoremri_core import load_prior

    return load_prior(properties.prior)


def _sampled(frames: list[Frame], properties: Properties, prior: Any) -> Iterator[Reconstruction]:
    from scoremri_core import reconstruct

    first = frames[0]
    given: dict[str, Any] = {"maps": properties.maps, "sampler": properties.sampler}
    if first.problem is not None:
        given["sampler"] = "none"
    if first.maps is not None:
        given["maps"] = np.stack([frame.maps for frame in frames])  # type: ignore[misc]
    volume = first.kspace.ndim == 4
    result = reconstruct(
        first.kspace if volume else np.stack([frame.kspace for frame in frames]),
        calibration=first.calibration if first.maps is None else None,
        noise_covariance=first.noise_covariance,
        prior=prior,
        samples=properties.samples,
        steps=properties.steps,
        seed=properties.seed,
        device=properties.device,
        **given,
    )
    if first.problem is not None:
        yield replace(result, info=replace(result.info, fallback=first.problem))
        return
    for i in range(len(frames)):
        yield result.select(i)


def _log(frame: Frame, result: Reconstruction) -> None:
    info = result.info
    sigma_n = float(np.mean(info.sigma_n))
    logger.info(
        "%s: sigma_n %.4g, %d evaluations, %d samples, %.2f s, %s",
        frame.identity,
        sigma_n,
        info.evaluations,
        info.samples,
        info.seconds,
        f"fallback: {info.fallback}" if info.fallback else f"sampler {info.sampler}",
    )
