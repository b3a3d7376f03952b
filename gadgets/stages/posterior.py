"""Frames to frames with their reconstruction."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gadgets.stages.frame import Frame
from gadgets.stages.properties import Properties

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
    (Frame, Reconstruction) on the matrix of the image, or an item that is not a frame; in the
    order in which they came.
    """
    prior = _prior(properties)
    for items in batches:
        results: dict[int, Reconstruction] = {}  # by the frame's index
        for item in items:
            if not isinstance(item, Frame):
                yield item
                continue
            if item.index not in results:
                alike = [other for other in items if _kind(other) == _kind(item)]
                made = _reconstructed(alike, properties, prior)
                results.update(zip((frame.index for frame in alike), made, strict=True))
            result = results.pop(item.index)
            _log(item, result)
            yield item, result


def _kind(item: Any) -> tuple[Any, ...] | None:
    """Key that frames of one batch share."""
    if not isinstance(item, Frame):
        return None
    alone = item.index if item.problem is not None or item.is_volume else -1
    maps = None if item.maps is None else item.maps.shape
    noise = None if item.noise_covariance is None else item.noise_covariance.tobytes()
    return item.kspace.shape, maps, noise, alone


def _prior(properties: Properties) -> Any:
    """The prior, loaded before the first frame is there."""
    if properties.sampler == "none" or not isinstance(properties.prior, str):
        return properties.prior
    from scoremri_core import load_prior

    return load_prior(properties.prior)


def _reconstructed(frames: list[Frame], properties: Properties, prior: Any) -> list[Reconstruction]:
    """Reconstructions of frames of one kind, on the matrix of their images."""
    start = time.perf_counter()
    first = frames[0]
    common: dict[str, Any] = {
        "noise_covariance": first.noise_covariance,
        "prior": prior,
        "sampler": properties.sampler if first.problem is None else "none",
        "samples": properties.samples,
        "steps": properties.steps,
        "seed": properties.seed,
        "device": properties.device,
    }
    results = _volume(first, common, properties) if first.is_volume else _slices(frames, common)
    if first.problem is not None:
        results = [replace(r, info=replace(r.info, fallback=(first.problem,))) for r in results]
    seconds = (time.perf_counter() - start) / len(frames)
    for frame in frames:
        frame.seconds["sampling"] = seconds
    return [
        result.resized(frame.recon_shape, frame.fov_fraction)
        for frame, result in zip(frames, results, strict=True)
    ]


def _volume(frame: Frame, common: dict[str, Any], properties: Properties) -> list[Reconstruction]:
    from scoremri_core.volume import reconstruct_volume

    return [
        reconstruct_volume(
            frame.kspace, calibration=frame.calibration, maps=properties.maps, **common
        )
    ]


def _slices(frames: list[Frame], common: dict[str, Any]) -> list[Reconstruction]:
    from scoremri_core import reconstruct

    first = frames[0]
    known = first.maps is not None
    result = reconstruct(
        np.stack([frame.kspace for frame in frames]),
        calibration=None if known else first.calibration,
        maps=np.stack([frame.maps for frame in frames]) if known else 1,  # type: ignore[misc]
        **common,
    )
    return [result.select(i) for i in range(len(frames))]


def _log(frame: Frame, result: Reconstruction) -> None:
    """One line a frame: which one, how it was sampled, and how long each stage took."""
    info = result.info
    done = f"{info.samples} samples of {info.evaluations} evaluations by {info.sampler}"
    logger.info(
        "%s: sigma_n %.4g (thermal %.4g), misfit %.2g, R %.2f, %s, %s",
        frame.identity,
        float(np.mean(info.sigma_n)),
        float(np.mean(info.sigma_thermal)),
        float(np.mean(info.misfit)),
        frame.acceleration,
        f"fallback: {info.reason}" if info.reason else done,
        ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in frame.seconds.items()),
    )
    logger.debug(
        "%s: k-space %s, image %s, %s calibration, scale %.4g",
        frame.identity,
        frame.kspace.shape,
        frame.recon_shape,
        "own" if frame.kept_calibration is None else "kept",
        float(np.mean(info.scale)),
    )
