"""Geometry of an array of k-space, and its side-car file."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ismrmrd import xsd

from scoremri_core.errors import InputError
from scoremri_core.scans.directions import FIELDS, pixel_directions
from scoremri_core.scans.flags import imaging_lines

Triple = tuple[float, float, float]
SUFFIXES = (".json", ".yaml", ".yml")
LARMOR = 42_577_478.5  # Hz/T, of 1H


@dataclass(frozen=True)
class Geometry:
    """Geometry of an encoded space, lengths in mm, LPS coordinates.

    Attributes
    ----------
    field_of_view : tuple of float
        (x, y, z), with readout oversampling; z is the thickness of a slice or slab.
    oversampling : float
        Of the readout.
    recon_matrix, recon_field_of_view : tuple or None
        (x, y, z) of the image. None: as encoded, without readout oversampling.
    position : tuple of float
        Centre of the first slice, or of the slab.
    slice_spacing : float or None
        Distance of slice centres; None: slice thickness.
    read_dir, phase_dir, slice_dir : tuple of float
        Directions of increasing x, y and slice.
    sample_time_us : float
        Dwell time; 0: unknown.
    field_strength_T : float or None
        None: unknown.
    protocol : str or None
        Name of the protocol.
    """

    field_of_view: Triple
    oversampling: float = 1.0
    recon_matrix: tuple[int, int, int] | None = None
    recon_field_of_view: Triple | None = None
    position: Triple = (0.0, 0.0, 0.0)
    slice_spacing: float | None = None
    read_dir: Triple = (1.0, 0.0, 0.0)
    phase_dir: Triple = (0.0, 1.0, 0.0)
    slice_dir: Triple = (0.0, 0.0, 1.0)
    sample_time_us: float = 0.0
    field_strength_T: float | None = None  # noqa: N815
    protocol: str | None = None

    def positions(self, slices: int) -> npt.NDArray[np.float64]:
        """Return the centres of the slices, (slice, 3)."""
        spacing = self.field_of_view[2] if self.slice_spacing is None else self.slice_spacing
        steps = np.arange(slices)[:, None] * spacing * np.array(self.slice_dir)
        centres: npt.NDArray[np.float64] = np.array(self.position) + steps
        return centres

    def to_header(self, coils: int) -> xsd.ismrmrdHeader:
        """Make an ISMRMRD header without encoding."""
        strength = self.field_strength_T
        return xsd.ismrmrdHeader(
            measurementInformation=xsd.measurementInformationType(
                patientPosition=xsd.patientPositionType.HFS, protocolName=self.protocol
            ),
            acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
                systemFieldStrength_T=strength, receiverChannels=coils
            ),
            experimentalConditions=xsd.experimentalConditionsType(
                H1resonanceFrequency_Hz=round((strength or 1.5) * LARMOR)
            ),
            encoding=[],
        )


def nominal(ny: int, nx: int) -> Geometry:
    """Return the geometry of pixels of 1 mm, for data of unknown geometry."""
    return Geometry((float(nx), float(ny), 5.0))


def find_sidecar(path: Path) -> Path | None:
    """Find the side-car of an array: same name with suffix .json, .yaml or .yml."""
    candidates = (path.with_suffix(suffix) for suffix in SUFFIXES)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def read_sidecar(path: Path) -> tuple[Geometry, tuple[str, ...] | None]:
    """Read a side-car.

    Parameters
    ----------
    path : Path

    Returns
    -------
    geometry : Geometry
    axes : tuple of str or None
        Names of the axes of the array, if given.

    Raises
    ------
    InputError
        The file is not readable, or a value is invalid.
    """
    document = _load(path)
    if not isinstance(document, dict):
        raise InputError(f"{path}: expected a mapping of names to values")
    axes = document.pop("axes", None)
    known = {field.name for field in fields(Geometry)}
    if unknown := sorted(set(document) - known):
        raise InputError(
            f"{path}: unknown name '{unknown[0]}': known are axes, {', '.join(sorted(known))}"
        )
    if "field_of_view" not in document:
        raise InputError(f"{path}: 'field_of_view' is missing: expected [x, y, z] in mm")
    geometry = Geometry(**{n: _checked(path, n, value) for n, value in document.items()})
    if not _orthonormal(geometry):
        raise InputError(
            f"{path}: read_dir, phase_dir and slice_dir: expected orthogonal unit vectors"
        )
    if axes is not None and not (
        isinstance(axes, list) and all(isinstance(axis, str) for axis in axes)
    ):
        raise InputError(f"{path}: axes {axes!r}: expected a list of names")
    return geometry, None if axes is None else tuple(axes)


def sidecar_text(geometry: Geometry, axes: tuple[str, ...]) -> str:
    """Return the JSON text of a side-car."""
    known = {name: value for name, value in asdict(geometry).items() if value is not None}
    return json.dumps({"axes": axes} | known, indent=1) + "\n"


def geometry_of(scan: Any, slices: int) -> Geometry:
    """Derive the geometry of the images of a scan, without readout oversampling.

    Parameters
    ----------
    scan : Readable
    slices : int
        Expected number of slices.

    Returns
    -------
    Geometry

    Raises
    ------
    InputError
        The slices are not parallel or not evenly spaced.
    """
    space = scan.header.encoding[0].encodedSpace
    recon = scan.header.encoding[0].reconSpace
    heads = scan.heads()
    heads = heads[imaging_lines(heads)]
    numbers = np.unique(heads["idx"]["slice"])
    if len(numbers) != slices:
        raise InputError(f"{scan.name}: {len(numbers)} slice counters, expected {slices}")
    first = [heads[heads["idx"]["slice"] == number][0] for number in numbers]
    positions = np.array([head["position"] for head in first], float)
    normal = np.array(first[0]["slice_dir"], float)
    spacing = None
    if slices > 1:
        steps = np.diff(positions, axis=0)
        spacing = float(np.mean(steps @ normal))
        same = all(np.allclose(head["slice_dir"], normal, atol=1e-4) for head in first)
        if not same or not np.allclose(steps, spacing * normal, atol=0.01):
            raise InputError(f"{scan.name}: slices are not parallel and evenly spaced")
    system = scan.header.acquisitionSystemInformation
    measurement = scan.header.measurementInformation
    size, fov = recon.matrixSize, recon.fieldOfView_mm
    geometry = Geometry(
        # without readout oversampling, as from `zero_filled_kspace`
        (fov.x, space.fieldOfView_mm.y, space.fieldOfView_mm.z),
        recon_matrix=(size.x, size.y, size.z),
        recon_field_of_view=(fov.x, fov.y, fov.z),
        position=_triple(positions[0]),
        slice_spacing=spacing,
        sample_time_us=float(first[0]["sample_time_us"]),
        field_strength_T=system.systemFieldStrength_T if system else None,
        protocol=measurement.protocolName if measurement else None,
    )
    rows = pixel_directions(first[0], scan.header, partitions=1)
    directions = {name: _triple(row) for name, row in zip(FIELDS, rows, strict=True)}
    directed = replace(geometry, **directions)  # type: ignore[arg-type]
    return directed if _orthonormal(directed) else geometry  # directions are zero in some files


def _triple(values: Any) -> Triple:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _load(path: Path) -> Any:
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".json":
        try:
            return json.loads(text)
        except ValueError as error:
            raise InputError(f"{path}: not readable as JSON ({error})") from error
    try:
        import yaml
    except ImportError as error:
        raise InputError(f"{path}: YAML needs PyYAML, of the extra `yaml`; or use JSON") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not readable as YAML") from error


def _checked(path: Path, name: str, value: Any) -> Any:
    """Check a value of the side-car and convert it to the type of its field."""
    invalid = InputError(f"{path}: {name} {value!r}: expected {_expected(name)}")
    if name == "protocol":
        if not isinstance(value, str):
            raise invalid
        return value
    numbers = value if isinstance(value, list) else [value]
    if not all(
        isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers
    ):
        raise invalid
    triples = {field.name for field in fields(Geometry) if "riple" in str(field.type)}
    if name in triples | {"recon_matrix"}:
        positive = name.endswith(("matrix", "view"))
        if len(numbers) != 3 or not isinstance(value, list) or (positive and min(numbers) <= 0):
            raise invalid
        if name == "recon_matrix":
            if any(n != int(n) for n in numbers):
                raise invalid
            return tuple(int(n) for n in numbers)
        return _triple(numbers)
    if isinstance(value, list) or (name == "oversampling" and value < 1):
        raise invalid
    return float(value)


def _expected(name: str) -> str:
    if name == "recon_matrix":
        return "[x, y, z], positive whole numbers"
    if name.endswith("view"):
        return "[x, y, z] in mm, positive"
    if name == "position" or name.endswith("_dir"):
        return "three numbers"
    return {"protocol": "a name", "oversampling": "a number, at least 1"}.get(name, "a number")


def _orthonormal(geometry: Geometry) -> bool:
    axes = np.array([geometry.read_dir, geometry.phase_dir, geometry.slice_dir])
    return bool(np.allclose(axes @ axes.T, np.eye(3), atol=1e-3))
