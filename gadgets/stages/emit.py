"""Reconstructions to ISMRMRD images: series, geometry, attributes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import ismrmrd
import numpy as np
from ismrmrd.xsd import ismrmrdHeader

from gadgets.stages.frame import Frame
from gadgets.stages.numbering import ImageNumbers
from gadgets.stages.properties import Properties
from gadgets.stages.scaling import Scale
from scoremri_core.recon.result import REFERENCES
from scoremri_core.scans.directions import as_attributes, pixel_directions
from scoremri_core.text import counted

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
    "complex_mean": "complex posterior mean",
    "quantiles": "5 % and 95 % quantiles of the magnitude",
    "coil_maps": "coil map",
    "g_factor": "g-factor of SENSE",
    "interval": "guaranteed 90 % interval of the magnitude",
}
# Gadgetron names DICOM files by role, counters and number, so roles must be unique.
ROLES = {
    "mean": "Image",
    "std": "STD_MAP",
    "phase": "Phase",
    "samples": ["Image", "Sample"],
    "zero_filled": ["Image", "ZeroFilled"],
    "classical": ["Image", "Classical"],
    "complex_std": ["STD_MAP", "Complex"],
    "complex_mean": ["Image", "Complex"],
    "quantiles": ["Image", "Quantile"],
    "coil_maps": ["Image", "CoilMap"],
    "g_factor": ["Image", "GFactor"],
    "interval": ["Image", "Interval"],
}
NO_PRIOR = (*REFERENCES, "coil_maps")
NO_UNITS = ("coil_maps", "g_factor")
IMAGE_TYPES = {
    "phase": ismrmrd.IMTYPE_PHASE,
    "complex_mean": ismrmrd.IMTYPE_COMPLEX,
    "coil_maps": ismrmrd.IMTYPE_COMPLEX,
}
MAX_INDEX = 65_535  # image_index is 16 bits wide


def emit(
    items: Iterable[Any], properties: Properties, header: ismrmrdHeader | None = None
) -> Iterator[Any]:
    """Convert reconstructions to images.

    The mean is the series `properties.series`, the standard deviation the next one, and the rest
    follow in the order of `properties.outputs`. A frame without samples has no standard deviation;
    its other outputs are sent, and `not_sent` and the log list the missing ones.

    Parameters
    ----------
    items : iterable
        (Frame, Reconstruction) of one scan and other items of the stream, which pass.
    properties : Properties
        Of the node.
    header : ismrmrdHeader, optional
        Its limits number the images; its vendor determines the directions of their pixels.

    Yields
    ------
    ismrmrd.Image or item that passes
    """
    scale, numbers, run = Scale(properties.scale), ImageNumbers(header), _run(properties, header)
    for item in items:
        if isinstance(item, tuple) and isinstance(item[0], Frame):
            frame, result = item
            scale.update(frame, result.mean)
            number = numbers.of(frame, len(result.mean))
            directions = pixel_directions(frame.header, header, len(result.mean))
            extra: dict[str, Any] = run | as_attributes(directions)
            sent, missing = _outputs(frame, result, properties)
            if missing:
                extra["not_sent"] = ",".join(missing)
                if properties.sampler != "none":
                    logger.warning("%s is sent without %s", frame.identity, ", ".join(missing))
            for output in sent:
                for pixels, index in _pixels(frame, result, output, number):
                    yield _image(
                        frame, result, output, pixels, index, properties, scale.factor, extra
                    )
        else:
            yield item


def _outputs(
    frame: Frame, result: Reconstruction, properties: Properties
) -> tuple[list[str], list[str]]:
    """Return the outputs to send of a frame and those that it does not have."""
    sampled = result.info.samples > 0 and not result.info.reason
    absent = set() if sampled else {"samples"}
    if not sampled or result.info.samples < 2:
        absent |= {"std", "complex_std", "quantiles"}
    if 0 in result.maps.shape or not np.isfinite(result.maps).all():
        absent.add("coil_maps")
    if not np.isfinite(result.references.get("g_factor", np.nan)).all():
        absent.add("g_factor")
    if frame.interval is None:
        absent.add("interval")
    sent = [name for name in properties.outputs if name not in absent]
    missing = [name for name in properties.outputs if name in absent]
    return sent or ["mean"], missing  # at least one image per frame


def _pixels(
    frame: Frame, result: Reconstruction, output: str, number: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the images of one output of a frame, (z, y, x), and their numbers."""
    if output in ("samples", "quantiles", "coil_maps", "interval"):
        if output == "samples":
            images = np.abs(result.samples)
        elif output == "quantiles":
            images = result.quantiles()
        elif output == "interval":
            images = np.asarray(frame.interval)
        else:
            images = result.maps.reshape(len(result.maps), -1, *result.maps.shape[3:])
        images = images.swapaxes(0, 1)
        for i, image in enumerate(images, start=1):
            yield image, (number - 1) * len(images) + i
    elif output == "complex_mean":
        yield result.mean, number
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
    """Number the series of the outputs.

    Parameters
    ----------
    properties : Properties
        Of the node.

    Returns
    -------
    dict of str to int
        Series index by output, also of mean and std if these are not outputs.
    """
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
    extra: dict[str, Any],
) -> ismrmrd.Image:
    if output == "phase" or output in NO_UNITS:
        factor = None
    scaled = pixels if factor is None else pixels * np.float32(factor)
    image = ismrmrd.Image.from_array(
        np.ascontiguousarray(scaled, np.complex64 if np.iscomplexobj(scaled) else np.float32),
        acquisition=frame.header,
        image_type=IMAGE_TYPES.get(output, ismrmrd.IMTYPE_MAGNITUDE),
        image_series_index=series_indices(properties)[output],
        image_index=(number - 1) % MAX_INDEX + 1,
        field_of_view=frame.field_of_view,
    )
    attributes = _attributes(frame, result, output, image.data, properties.seed)
    attributes |= extra | _gadgetron_attributes(attributes, output, image, factor)
    image.meta = ismrmrd.Meta({name: _ascii(value) for name, value in attributes.items()})
    return image


def _gadgetron_attributes(
    attributes: dict[str, Any], output: str, image: ismrmrd.Image, factor: float | None
) -> dict[str, Any]:
    """Return the attributes that gadgets of a Gadgetron server read.

    They read integer windows: a narrower one is left out, as is that of the phase, whose
    conversion to integers ignores a window in radians.
    """
    comment, units = [attributes["ImageComment"]], "k-space"
    result: dict[str, Any] = {
        "GADGETRON_ImageNumber": image.image_index,
        "GADGETRON_DataRole": ROLES[output],
        "GADGETRON_SeqDescription": attributes["SeriesDescription"],
    }
    center, width = (float(attributes[name]) for name in ("WindowCenter", "WindowWidth"))
    if output != "phase" and width >= 1:
        result["GADGETRON_WindowCenter"] = round(center)
        result["GADGETRON_WindowWidth"] = round(width)
    if factor is not None:
        result["GADGETRON_ScaleRatio"] = f"{factor:.9g}"
        comment.append(f"x{factor:.6g}")  # DICOM has no other place for the factor
        units = "k-space times GADGETRON_ScaleRatio"
    if output == "phase":
        units = "radians"
    elif output in NO_UNITS:
        units = "dimensionless"
    result["GADGETRON_ImageComment"] = comment
    result["units"] = f"pixels and window: {units}; sigma_n, sigma_thermal and scale: k-space"
    return result


def _attributes(
    frame: Frame, result: Reconstruction, output: str, pixels: np.ndarray, seed: int
) -> dict[str, Any]:
    info = result.info
    description = DESCRIPTIONS[output]
    comment = (
        f"{description}, {counted(info.samples, 'sample')} by {info.sampler}, prior {info.prior}"
    )
    if output in NO_PRIOR:
        comment = f"{description}, no prior"
    elif not info.samples or info.reason:
        description = comment = "classical reconstruction"
        if output in ("phase", "complex_mean"):
            kind = "phase of the" if output == "phase" else "complex"
            description = comment = f"{kind} classical reconstruction"
    if info.reason:
        comment = f"{comment}: {info.reason}"
    if info.inconsistency:
        comment = f"{comment}; {info.inconsistency}"
    width = max(float(np.percentile(np.abs(pixels), 99.5)), float(np.finfo(np.float32).tiny))
    center, width = (0.0, 2 * np.pi) if output == "phase" else (width / 2, width)
    attributes: dict[str, Any] = {
        "DataRole": "Quantitative" if output in ("std", "complex_std", "g_factor") else "Image",
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
        "frame_seed": info.seed,  # the seed of `reconstruct` for this frame
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
    if output == "interval":
        attributes["guarantee"] = frame.guarantee
    if frame.guarantee_refused:
        attributes["guarantee_refused"] = frame.guarantee_refused
    return attributes


def _run(properties: Properties, header: ismrmrdHeader | None) -> dict[str, Any]:
    """Return the attributes that all images of a scan share: program, settings, protocol."""
    study = getattr(header, "studyInformation", None)
    measurement = getattr(header, "measurementInformation", None)
    position = getattr(measurement, "patientPosition", None)
    date = getattr(study, "studyDate", None) or getattr(measurement, "seriesDate", None)
    attributes = {
        "scoremri_version": version("scoremri"),
        "protocol": getattr(measurement, "protocolName", None),
        "scan_date": date,
        "patient_position": position and position.value,
        "maps": properties.maps,
        "noise": properties.noise,
    }
    return {name: value for name, value in attributes.items() if value}


def _number(value: Any) -> str:
    return f"{float(np.mean(value)):.6g}"


def _ascii(value: Any) -> Any:
    """Convert an attribute to ASCII text."""
    if isinstance(value, list):
        return [_ascii(each) for each in value]
    return str(value).encode("ascii", "replace").decode()
