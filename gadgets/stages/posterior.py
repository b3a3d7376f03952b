"""Reconstruction of frames: posterior samples, or the classical reconstruction."""

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
from scoremri_core.text import counted

if TYPE_CHECKING:
    from scoremri_core import Progress, Reconstruction
    from scoremri_core.recon.request import Request

logger = logging.getLogger(__name__)

SAMPLING = "sampling"  # the stage that frames of a batch share
LevelCallback = Callable[[int, "Progress"], None]


def posterior(
    batches: Iterable[list[Any]], properties: Properties, level_sampled: LevelCallback | None = None
) -> Iterator[Any]:
    """Reconstruct frames, those of one shape as one batch.

    A frame that cannot be sampled gets a classical reconstruction and the reason; the others are
    not affected.

    Parameters
    ----------
    batches : iterable of list
        Frames that wait together and other items of the stream, which pass.
    properties : Properties
        Of the node.
    level_sampled : callable, optional
        Called with the number of frames in the batch and the progress after each noise level.

    Yields
    ------
    (Frame, Reconstruction) or item that passes
        On the recon matrix, in the order of the input.

    Raises
    ------
    InputError
        The sampler does not take `properties.steps`, or the prior cannot be loaded.
    """
    _check_steps(properties)
    prior = prior_of(properties)
    for items in batches:
        results: dict[int, Reconstruction] = {}  # by the frame's index
        for item in items:
            if not isinstance(item, Frame):
                yield item
                continue
            if item.index not in results:
                batch = [other for other in items if _kind(other) == _kind(item)]
                batch_results = _reconstruct(batch, properties, prior, level_sampled)
                results.update(zip((f.index for f in batch), batch_results, strict=True))
                _log_batch(batch)
            result = results.pop(item.index)
            _log(item, result)
            yield item, result


def _kind(item: Any) -> tuple[Any, ...] | None:
    """Return the key of frames that form one batch."""
    if not isinstance(item, Frame):
        return None
    single = item.index if item.problem is not None or item.is_volume else -1
    return item.kspace.values.shape, single


def _check_steps(properties: Properties) -> None:
    """Raise InputError for a number of steps that the sampler does not take."""
    if properties.sampler != "none":
        from scoremri_core.samplers.registry import find_sampler

        find_sampler(properties.sampler, properties.steps, {})


def prior_of(properties: Properties) -> Any:
    """Load the prior of a node, unless it is loaded or the sampler is "none".

    Parameters
    ----------
    properties : Properties

    Returns
    -------
    Denoiser, or its name
    """
    if properties.sampler == "none" or not isinstance(properties.prior, str):
        return properties.prior
    from scoremri_core.recon.request import find_device
    from scoremri_core.samplers.registry import find_sampler

    prior: Any = find_sampler(properties.sampler, None, {}).prior(properties.prior)
    return prior.to(find_device(properties.device))


def _reconstruct(
    frames: list[Frame], properties: Properties, prior: Any, level_sampled: LevelCallback | None
) -> list[Reconstruction]:
    """Reconstruct a batch; if that fails, frame by frame; if that fails, fall back."""
    start = time.perf_counter()
    try:
        results = _run(frames, properties, prior, level_sampled)
    except Exception as error:  # noqa: BLE001  (frame by frame, to isolate the one that fails)
        if len(frames) > 1:
            logger.warning(
                "Batch of %d frames failed: %s; reconstructing them one by one", len(frames), error
            )
            return [_reconstruct([f], properties, prior, level_sampled)[0] for f in frames]
        results = [_fallback(frames[0], error, properties)]
    for frame in frames:
        frame.seconds[SAMPLING] = (time.perf_counter() - start) / len(frames)
        frame.together = len(frames) > 1
    return results


def _run(
    frames: list[Frame],
    properties: Properties,
    prior: Any,
    level_sampled: LevelCallback | None = None,
) -> list[Reconstruction]:
    from scoremri_core.recon.reconstruction import reconstruct_kspace_volume, reconstruct_slices

    first = frames[0]
    request = _request(frames, properties)
    callback = level_sampled and partial(level_sampled, len(frames))
    if first.is_volume:
        result = reconstruct_kspace_volume(first.kspace, request, prior, callback=callback)
        results = [result]
    else:
        calibrated = [frame.calibrated for frame in frames]
        result = reconstruct_slices(
            [frame.kspace for frame in frames],
            request,
            prior,
            calibrated=None if None in calibrated else calibrated,  # type: ignore[arg-type]
            callback=callback,
        )
        results = [result.select(i) for i in range(len(frames))]
    if first.problem is not None:
        results = [replace(r, info=replace(r.info, fallback=(first.problem,))) for r in results]
    return [
        replace(result, info=replace(result.info, seed=seed)).resized(
            frame.recon_shape, frame.fov_fraction
        )
        for frame, result, seed in zip(frames, results, request.seeds, strict=True)
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
    references = tuple(name for name in properties.outputs if name in REFERENCES)
    return replace(request, references=references, keep_maps="coil_maps" in properties.outputs)


def _fallback(frame: Frame, error: Exception, properties: Properties) -> Reconstruction:
    """Reconstruct a failed frame classically; if that fails too, as root sum of squares."""
    from scoremri_core.recon.reconstruction import root_sum_of_squares_only

    sampled = frame.problem is None
    with frame.guarded():
        raise error
    if sampled:
        with frame.guarded():
            return _run([frame], properties, None)[0]
    result = root_sum_of_squares_only(frame.kspace, _request([frame], properties), frame.problem)
    return result.resized(frame.recon_shape, frame.fov_fraction)


def _log_batch(frames: list[Frame]) -> None:
    """Log the time of a batch once."""
    if frames[0].together:
        seconds = sum(frame.seconds[SAMPLING] for frame in frames)
        logger.info("Batch of %d frames: %s %.2f s", len(frames), SAMPLING, seconds)


def _log(frame: Frame, result: Reconstruction) -> None:
    """Log one line per frame: its parameters and the times of its stages, without the batch's."""
    info = result.info
    stages = {n: s for n, s in frame.seconds.items() if n != SAMPLING or not frame.together}
    method = "no sampler"
    if info.samples:
        method = (
            f"{counted(info.samples, 'sample')} of {counted(info.evaluations, 'evaluation')} "
            f"by {info.sampler}, misfit {np.mean(info.misfit):.2g}"
        )
    logger.info(
        "%s: sigma_n %.4g (thermal %.4g), R %.2f, %s, %s",
        frame.identity,
        float(np.mean(info.sigma_n)),
        float(np.mean(info.sigma_thermal)),
        frame.kspace.acceleration,
        f"fallback: {info.reason}" if info.reason else method,
        ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in stages.items()),
    )
    logger.debug(
        "%s: k-space %s, image %s, %s calibration, scale %.4g",
        frame.identity,
        frame.kspace.values.shape,
        frame.recon_shape,
        "embedded" if frame.kspace.calibration is None else "separate",
        float(np.mean(info.scale)),
    )
