"""Reconstructions to ISMRMRD images: series, geometry and attributes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import ismrmrd
import numpy as np

from gadgets.stages.frame import Frame
from gadgets.stages.numbering import ImageNumbers
from gadgets.stages.properties import Properties
from gadgets.stages.scaling import Scale
from scoremri_core.recon.result import REFERENCES
from scoremri_core.scans.directions import as_attributes, pixel_directions

if TYPE_CHECKING:
    from scoremri_core import Reconstruction

logger = logging.getLogger(__name__)

DESCRIPTIONS = {
    "mean": "posterior mean",
    "std": "posterior standard deviation of the magnitude",
    "phase": "phase of the posterior mean",
    "samples": "posterior sample",
    "zero_filled": "zero-filled image",
    "classical": "classical reconstruction",
    "complex_std": "posterior standard deviation of the complex value",
}
# Gadgetron names DICOM files by role, counters and number: no two outputs may share a role.
ROLES = {
    "mean": "Image",
    "std": "STD_MAP",
    "phase": "Phase",
    "samples": ["Image", "Sample"],
    "zero_filled": ["Image", "ZeroFilled"],
    "classical": ["Image", "Classical"],
    "complex_std": ["STD_MAP", "Complex"],
}
MAX_INDEX = 65_535  # image_index is 16 bits wide


def emit(items: Iterable[Any], properties: Properties, header: Any = None) -> Iterator[Any]:
    """Images of each (Frame, Reconstruction); anything else in the stream passes on.

    The mean is the series `properties.series`, the standard deviation the next one, and the rest
    follow in the order of `properties.outputs`. A frame without samples has no standard deviation:
    its other outputs are sent, their attribute `not_sent` and the log name the missing ones.

    Parameters
    ----------
    items : iterable
        Of one scan.
    properties : Properties
        Of the node.
    header : ismrmrd.xsd.ismrmrdHeader
        Its limits number the images; its vendor tells which way their pixels run.
    """
    scale, numbers = Scale(properties.scale), ImageNumbers(header)
    for item in items:
        if isinstance(item, tuple) and isinstance(item[0], Frame):
            frame, result = item
            scale.see(frame, result.mean)
            number = numbers.of(frame, len(result.mean))
            further: dict[str, Any] = as_attributes(
                pixel_directions(frame.header, header, len(result.mean))
            )
            sent, missing = _outputs(result, properties)
            if missing:
                further["not_sent"] = ",".join(missing)
                if properties.sampler != "none":
                    logger.warning("%s is sent without %s", frame.identity, ", ".join(missing))
            for output in sent:
                for pixels, index in _pixels(result, output, number):
                    yield _image(
                        frame, result, output, pixels, index, properties, scale.factor, further
                    )
        else:
            yield item


def _outputs(result: Reconstruction, properties: Properties) -> tuple[list[str], list[str]]:
    """Outputs that a frame is sent as, and those asked for that it does not have."""
    sampled = result.info.samples > 0 and not result.info.reason
    absent = set() if sampled else {"samples"}
    if not sampled or result.info.samples < 2:
        absent |= {"std", "complex_std"}
    sent = [name for name in properties.outputs if name not in absent]
    missing = [name for name in properties.outputs if name in absent]
    return sent or ["mean"], missing  # no frame is lost


def _pixels(result: Reconstruction, output: str, number: int) -> Iterator[tuple[np.ndarray, int]]:
    """Images of one output of a frame, float (z, y, x), and their numbers."""
    if output == "samples":
        drawn = np.abs(result.samples).swapaxes(0, 1)
        for i, sample in enumerate(drawn, start=1):
            yield sample, (number - 1) * len(drawn) + i
    elif output == "std":
        yield result.magnitude_std, number
    elif output == "complex_std":
        yield result.std, number
    elif output in REFERENCES:
        yield np.abs(result.references[output]), number
    elif output == "phase":
        yield np.angle(result.mean), number
    else:
        yield result.magnitude, number


def series_indices(properties: Properties) -> dict[str, int]:
    """Series index of every output that can be sent."""
    rest = [name for name in properties.outputs if name not in ("mean", "std")]
    return {name: properties.series + i for i, name in enumerate(("mean", "std", *rest))}


def _image(
    frame: Frame,
    result: Reconstruction,
    output: str,
    pixels: np.ndarray,
    number: int,
    properties: Properties,
    factor: float | None,
    further: dict[str, Any],
) -> ismrmrd.Image:
    if output == "phase":
        factor = None
    scaled = pixels if factor is None else pixels * np.float32(factor)
    image = ismrmrd.Image.from_array(
        np.ascontiguousarray(scaled, np.float32),
        acquisition=frame.header,
        image_type=ismrmrd.IMTYPE_PHASE if output == "phase" else ismrmrd.IMTYPE_MAGNITUDE,
        image_series_index=series_indices(properties)[output],
        image_index=(number - 1) % MAX_INDEX + 1,
        field_of_view=frame.field_of_view,
    )
    attributes = _attributes(frame, result, output, image.data, properties.seed)
    attributes |= further | _for_gadgetron(attributes, output, image, factor)
    image.meta = ismrmrd.Meta({name: _ascii(value) for name, value in attributes.items()})
    return image


def _for_gadgetron(
    attributes: dict[str, Any], output: str, image: ismrmrd.Image, factor: float | None
) -> dict[str, Any]:
    """What the gadgets of a Gadgetron server read of an image, as they spell it.

    They read a window as whole numbers, so that one too narrow for these is left to them; and
    they turn phase into whole numbers by a rule of their own, which a window in radians does not
    know of.
    """
    comment, units = [attributes["ImageComment"]], "k-space"
    told: dict[str, Any] = {
        "GADGETRON_ImageNumber": image.image_index,
        "GADGETRON_DataRole": ROLES[output],
        "GADGETRON_SeqDescription": attributes["SeriesDescription"],
    }
    center, width = (float(attributes[name]) for name in ("WindowCenter", "WindowWidth"))
    if output != "phase" and width >= 1:
        told["GADGETRON_WindowCenter"] = round(center)
        told["GADGETRON_WindowWidth"] = round(width)
    if factor is not None:
        told["GADGETRON_ScaleRatio"] = f"{factor:.9g}"
        comment.append(f"x{factor:.6g}")  # all that DICOM keeps of it
        units = "k-space times GADGETRON_ScaleRatio"
    if output == "phase":
        units = "radians"
    told["GADGETRON_ImageComment"] = comment
    told["units"] = f"pixels and window: {units}; sigma_n, sigma_thermal and scale: k-space"
    return told


def _attributes(
    frame: Frame, result: Reconstruction, output: str, pixels: np.ndarray, seed: int
) -> dict[str, Any]:
    info = result.info
    description = DESCRIPTIONS[output]
    comment = f"{description}, {info.samples} samples by {info.sampler}, prior {info.prior}"
    if output in REFERENCES:
        comment = f"{description}, no prior"
    elif not info.samples or info.reason:
        description = comment = "classical reconstruction"
        if output == "phase":
            description = comment = "phase of the classical reconstruction"
    if info.reason:
        comment = f"{comment}: {info.reason}"
    if info.inconsistency:
        comment = f"{comment}; {info.inconsistency}"
    width = max(float(np.percentile(pixels, 99.5)), float(np.finfo(np.float32).tiny))
    center, width = (0.0, 2 * np.pi) if output == "phase" else (width / 2, width)
    attributes: dict[str, Any] = {
        "DataRole": "Quantitative" if output in ("std", "complex_std") else "Image",
        "ImageProcessingHistory": ["scoremri", info.sampler],
        "SequenceDescriptionAdditional": f"scoremri_{output}",
        "SeriesDescription": f"scoremri {description}",
        "ImageComment": comment,
        "ImageComments": comment,
        "WindowCenter": f"{center:.6g}",
        "WindowWidth": f"{width:.6g}",
        "Keep_image_geometry": 1,
        "sampler": info.sampler,
        "steps": info.steps,
        "evaluations": info.evaluations,
        "samples": info.samples,
        "prior": info.prior,
        "seed": seed,
        "frame_seed": info.seed,  # what `reconstruct` takes for this frame
        "sigma_n": _number(info.sigma_n),
        "sigma_thermal": _number(info.sigma_thermal),
        "misfit": _number(info.misfit),
        "inconsistent_lines": _number(info.inconsistent_lines),
        "acceleration": f"{frame.kspace.acceleration:.4g}",
        "unacquired": _number(info.unacquired),
        "scale": _number(info.scale),
    }
    if info.variance_scale is not None:
        attributes["variance_scale"] = f"{info.variance_scale:g}"
        attributes["inflation"] = f"{info.inflation:g}"
    if frame.coil_loss is not None:
        attributes["coils"] = frame.kspace.coils
        attributes["coil_compression_loss"] = f"{frame.coil_loss:.3g}"
    if info.inconsistency:
        attributes["warning"] = info.inconsistency
    if info.reason:
        attributes["fallback"] = info.reason
    return attributes


def _number(value: Any) -> str:
    return f"{float(np.mean(value)):.6g}"


def _ascii(value: Any) -> Any:
    """Attribute text as the wire can carry it."""
    if isinstance(value, list):
        return [_ascii(each) for each in value]
    return str(value).encode("ascii", "replace").decode()
