"""Frames to frames with their reconstruction."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gadgets.stages.frame import Frame
from gadgets.stages.properties import Properties

if TYPE_CHECKING:
    from scoremri_core import Progress, Reconstruction
    from scoremri_core.recon.request import Request

logger = logging.getLogger(__name__)

SAMPLING = "sampling"  # the stage that frames may have in common
Sampling = Callable[[int, "Progress"], None]


def posterior(
    batches: Iterable[list[Any]], properties: Properties, sampling: Sampling | None = None
) -> Iterator[Any]:
    """Sample the frames that wait, those of one shape and noise as one batch.

    A frame with a problem, and one that turns out to have one, comes with the best classical
    image and the reason; whatever goes wrong with it, the others are sampled.

    Parameters
    ----------
    batches : lists of frames and whatever else the stream holds, in its order.
    properties : of the node.
    sampling : told how many frames are sampled together, and of each noise level.

    Yields
    ------
    (Frame, Reconstruction) on the matrix of the image, or an item that is not a frame; in the
    order in which they came.
    """
    _check_steps(properties)
    prior = _prior(properties)
    for items in batches:
        results: dict[int, Reconstruction] = {}  # by the frame's index
        for item in items:
            if not isinstance(item, Frame):
                yield item
                continue
            if item.index not in results:
                alike = [other for other in items if _kind(other) == _kind(item)]
                made = _reconstructed(alike, properties, prior, sampling)
                results.update(zip((frame.index for frame in alike), made, strict=True))
                _log_batch(alike)
            result = results.pop(item.index)
            _log(item, result)
            yield item, result


def _kind(item: Any) -> tuple[Any, ...] | None:
    """Key that frames of one batch share."""
    if not isinstance(item, Frame):
        return None
    alone = item.index if item.problem is not None or item.is_volume else -1
    return item.kspace.values.shape, alone


def _check_steps(properties: Properties) -> None:
    """Refuse what the sampler does not take, with InputError: no frame would be to blame."""
    if properties.sampler != "none":
        from scoremri_core.samplers.registry import find_sampler

        find_sampler(properties.sampler, properties.steps, {})


def _prior(properties: Properties) -> Any:
    """The prior, loaded before the first frame is there."""
    if properties.sampler == "none" or not isinstance(properties.prior, str):
        return properties.prior
    from scoremri_core.recon.request import find_device
    from scoremri_core.samplers.registry import find_sampler

    prior: Any = find_sampler(properties.sampler, None, {}).prior(properties.prior)
    return prior.to(find_device(properties.device))


def _reconstructed(
    frames: list[Frame], properties: Properties, prior: Any, sampling: Sampling | None
) -> list[Reconstruction]:
    """Reconstructions of frames of one kind, on the matrix of their images."""
    start = time.perf_counter()
    try:
        results = _made(frames, properties, prior, sampling)
    except Exception as error:  # noqa: BLE001  (one of them is to blame, and has to be found)
        if len(frames) > 1:
            logger.warning("%d frames at once: %s; one by one now", len(frames), error)
            alone = ([frame] for frame in frames)
            return [r for one in alone for r in _reconstructed(one, properties, prior, sampling)]
        results = [_fallback(frames[0], error, properties)]
    for frame in frames:
        frame.seconds[SAMPLING] = (time.perf_counter() - start) / len(frames)
        frame.together = len(frames) > 1
    return results


def _made(
    frames: list[Frame], properties: Properties, prior: Any, sampling: Sampling | None = None
) -> list[Reconstruction]:
    from scoremri_core.recon.reconstruction import reconstruct_kspace_volume, reconstruct_slices

    first = frames[0]
    request = _request(frames, properties)
    callback = sampling and partial(sampling, len(frames))
    if first.is_volume:
        result = reconstruct_kspace_volume(first.kspace, request, prior, callback=callback)
        results = [result]
    else:
        known = [frame.calibrated for frame in frames]
        result = reconstruct_slices(
            [frame.kspace for frame in frames],
            request,
            prior,
            calibrated=None if None in known else known,  # type: ignore[arg-type]
            callback=callback,
        )
        results = [result.select(i) for i in range(len(frames))]
    if first.problem is not None:
        results = [replace(r, info=replace(r.info, fallback=(first.problem,))) for r in results]
    return [
        replace(made, info=replace(made.info, seed=seed)).resized(
            frame.recon_shape, frame.fov_fraction
        )
        for frame, made, seed in zip(frames, results, request.seeds, strict=True)
    ]


def _request(frames: list[Frame], properties: Properties) -> Request:
    from scoremri_core.recon.request import Request
    from scoremri_core.recon.result import REFERENCES

    request = Request.of(
        (len(frames), *frames[0].kspace.values.shape[-3:]),
        sampler=properties.sampler if frames[0].problem is None else "none",
        samples=properties.samples,
        steps=properties.steps,
        maps=properties.maps,
        seed=[frame.seed(properties.seed) for frame in frames],
        device=properties.device,
    )
    wanted = tuple(name for name in properties.outputs if name in REFERENCES)
    return replace(request, references=wanted, keep_maps=False)


def _fallback(frame: Frame, error: Exception, properties: Properties) -> Reconstruction:
    """A classical image of a frame that failed: with its coil maps, or as the coils show it."""
    from scoremri_core.recon.reconstruction import root_sum_of_squares_only

    sampled = frame.problem is None
    with frame.guarded():
        raise error
    if sampled:
        with frame.guarded():
            return _made([frame], properties, None)[0]
    plain = root_sum_of_squares_only(frame.kspace, _request([frame], properties), frame.problem)
    return plain.resized(frame.recon_shape, frame.fov_fraction)


def _log_batch(frames: list[Frame]) -> None:
    """How long frames took that were sampled together, told once."""
    if frames[0].together:
        seconds = sum(frame.seconds[SAMPLING] for frame in frames)
        logger.info("%d frames together: %s %.2f s", len(frames), SAMPLING, seconds)


def _log(frame: Frame, result: Reconstruction) -> None:
    """One line a frame: which one, how it was sampled, and how long each stage took of it alone."""
    info = result.info
    own = {name: s for name, s in frame.seconds.items() if name != SAMPLING or not frame.together}
    done = f"{info.samples} samples of {info.evaluations} evaluations by {info.sampler}"
    logger.info(
        "%s: sigma_n %.4g (thermal %.4g), misfit %.2g, R %.2f, %s, %s",
        frame.identity,
        float(np.mean(info.sigma_n)),
        float(np.mean(info.sigma_thermal)),
        float(np.mean(info.misfit)),
        frame.kspace.acceleration,
        f"fallback: {info.reason}" if info.reason else done,
        ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in own.items()),
    )
    logger.debug(
        "%s: k-space %s, image %s, %s calibration, scale %.4g",
        frame.identity,
        frame.kspace.values.shape,
        frame.recon_shape,
        "own" if frame.kspace.calibration is None else "separate",
        float(np.mean(info.scale)),
    )
