"""Reconstructions to ISMRMRD images: series, geometry and attributes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import ismrmrd
import numpy as np

from gadgets.stages.frame import Frame
from gadgets.stages.properties import Properties

if TYPE_CHECKING:
    from scoremri_core import Reconstruction

DESCRIPTIONS = {
    "mean": "posterior mean",
    "std": "posterior standard deviation",
    "phase": "phase of the posterior mean",
    "samples": "posterior sample",
}
MAX_INDEX = 65_535  # image_index is 16 bits wide


def emit(items: Iterable[Any], properties: Properties) -> Iterator[Any]:
    """Images of each (Frame, Reconstruction); anything else in the stream passes on.

    The mean is the series `properties.series`, the standard deviation the next one, and the rest
    follow in the order of `properties.outputs`.  A frame that could not be sampled is sent as
    one image in the series of the mean: an unknown standard deviation is not a number to send,
    nor is that of a single sample.
    """
    for item in items:
        if isinstance(item, tuple) and isinstance(item[0], Frame):
            frame, result = item
            yield from images(frame, result, properties)
        else:
            yield item


def images(frame: Frame, result: Reconstruction, properties: Properties) -> Iterator[ismrmrd.Image]:
    """Images of one frame, float32 (z, y, x)."""
    sampled = result.info.samples > 0 and not result.info.reason
    series = series_indices(properties)
    known = [name for name in properties.outputs if name != "std" or result.info.samples > 1]
    wanted = known if sampled else ["mean"]
    for output in wanted:
        number = series[output]
        if output == "samples":
            drawn = np.abs(result.samples).swapaxes(0, 1)
            for i, sample in enumerate(drawn):
                index = frame.index * len(drawn) + i
                yield _image(frame, result, output, sample, number, index)
            continue
        if output == "std":
            pixels: np.ndarray = result.std
        else:
            pixels = np.angle(result.mean) if output == "phase" else np.abs(result.mean)
        yield _image(frame, result, output, pixels, number, frame.index)


def series_indices(properties: Properties) -> dict[str, int]:
    """Series index of every output that can be sent."""
    rest = [name for name in properties.outputs if name not in ("mean", "std")]
    return {name: properties.series + i for i, name in enumerate(("mean", "std", *rest))}


def _image(
    frame: Frame,
    result: Reconstruction,
    output: str,
    pixels: np.ndarray,
    series: int,
    index: int,
) -> ismrmrd.Image:
    image = ismrmrd.Image.from_array(
        np.ascontiguousarray(pixels, np.float32),
        acquisition=frame.header,
        image_type=ismrmrd.IMTYPE_PHASE if output == "phase" else ismrmrd.IMTYPE_MAGNITUDE,
        image_series_index=series,
        image_index=index % MAX_INDEX + 1,
        field_of_view=frame.field_of_view,
    )
    image.meta = ismrmrd.Meta(_attributes(frame, result, output, image.data))
    return image


def _attributes(
    frame: Frame, result: Reconstruction, output: str, pixels: np.ndarray
) -> dict[str, Any]:
    info = result.info
    description = DESCRIPTIONS[output]
    comment = f"{description}, {info.samples} samples by {info.sampler}, prior {info.prior}"
    if not info.samples or info.reason:
        description = comment = "classical reconstruction"
    if info.reason:
        comment = f"{comment}: {info.reason}"
    width = max(float(np.percentile(pixels, 99.5)), float(np.finfo(np.float32).tiny))
    center, width = (0.0, 2 * np.pi) if output == "phase" else (width / 2, width)
    attributes: dict[str, Any] = {
        "DataRole": "Image" if output != "std" else "Quantitative",
        "ImageProcessingHistory": ["scoremri", info.sampler],
        "SequenceDescriptionAdditional": f"scoremri_{output}",
        "SeriesDescription": f"scoremri {description}",
        "ImageComment": comment,
        "ImageComments": comment,
        "WindowCenter": f"{center:.6g}",
        "WindowWidth": f"{width:.6g}",
        "Keep_image_geometry": 1,
        "ImageRowDir": [f"{value:.18f}" for value in frame.header.read_dir],
        "ImageColumnDir": [f"{value:.18f}" for value in frame.header.phase_dir],
        "sampler": info.sampler,
        "steps": info.steps,
        "evaluations": info.evaluations,
        "samples": info.samples,
        "prior": info.prior,
        "seed": info.seed,
        "sigma_n": _number(info.sigma_n),
        "sigma_thermal": _number(info.sigma_thermal),
        "misfit": _number(info.misfit),
        "unacquired": _number(info.unacquired),
        "scale": _number(info.scale),
    }
    if info.variance_scale is not None:
        attributes["variance_scale"] = f"{info.variance_scale:g}"
        attributes["inflation"] = f"{info.inflation:g}"
    if frame.coil_loss is not None:
        attributes["coils"] = len(frame.kspace)
        attributes["coil_compression_loss"] = f"{frame.coil_loss:.3g}"
    if info.reason:
        attributes["fallback"] = info.reason
    return {name: _ascii(value) for name, value in attributes.items()}


def _number(value: Any) -> str:
    return f"{float(np.mean(value)):.6g}"


def _ascii(value: Any) -> Any:
    """Attribute text as the wire can carry it."""
    if isinstance(value, list):
        return [_ascii(each) for each in value]
    return str(value).encode("ascii", "replace").decode()
