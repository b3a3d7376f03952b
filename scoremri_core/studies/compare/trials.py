"""What is reconstructed: scans, and how each shift undersamples them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from scoremri_core.errors import InputError
from scoremri_core.simulation.phantom import CONTRASTS
from scoremri_core.simulation.simulation import SimulatedScan
from scoremri_core.studies.compare.presets import NARROW_FROM, Preset
from scoremri_core.studies.evaluate.survey import FullScan, evenly_spaced, find_files, read_scans
from scoremri_core.studies.methods.examples import Image, simulated_kspace
from scoremri_core.training.manifest import Source, find_sources
from scoremri_core.training.slices import Slice, load_slices

SHIFTS = ("in distribution", "acceleration", "mask", "contrast", "anatomy", "real scan")
# how the papers' masks are drawn that no network was trained with
MASKS = (("equispaced", "readout"), ("uniform", "phase"), ("poisson", "phase"), ("poisson", "both"))
NIFTI = (".nii", ".nii.gz")


@dataclass(frozen=True)
class Trial:
    """One way to undersample a scan.

    Attributes
    ----------
    shift : one of SHIFTS: in what it differs from the training.
    scan : its name.
    mask, axis, acceleration : see `kept_samples`; R is the true one.
    calibration : share of the lines.
    """

    shift: str
    scan: str
    mask: str = "equispaced"
    axis: str = "phase"
    acceleration: float = 6.0
    calibration: str = "8%"  # of fastMRI's masks, as in both papers

    @property
    def label(self) -> str:
        """What the rows of a table are told apart by, within a shift."""
        where = {"phase": "", "readout": ", horizontal", "both": ", 2D"}[self.axis]
        scan = "" if self.shift in SHIFTS[:3] else f"{self.scan}, "
        return f"{scan}{self.mask}{where}, R = {self.acceleration:g}"


@dataclass(frozen=True)
class Scans:
    """The scans of an experiment by what they are for.

    Attributes
    ----------
    held_out : semi-synthetic scans of subjects that no network has seen, by contrast.
    phantoms : simulated heads of the contrasts that no such subject has.
    real : k-space of scanners.
    anatomy : of other parts of the body.
    """

    held_out: list[FullScan]
    phantoms: list[FullScan]
    real: list[FullScan]
    anatomy: list[FullScan]

    @property
    def by_name(self) -> dict[str, FullScan]:
        """All of them."""
        every = (*self.held_out, *self.phantoms, *self.real, *self.anatomy)
        return {scan.name: scan for scan in every}


def find_scans(
    sources: Sequence[Source],
    real: Sequence[Path],
    anatomy: Sequence[Path],
    preset: Preset,
    cache: Path,
    seed: int,
) -> Scans:
    """Read what the experiments need.

    Parameters
    ----------
    sources : volumes with their splits; those of "val" and "test" are scanned.
    real : fully sampled scans of heads, files or folders.
    anatomy : of other parts, or NIfTI volumes of them.

    Raises
    ------
    InputError : a path that is not there, or without anything to read.
    """
    # tell of a wrong path before the volumes are read
    volumes = [path for path in anatomy if path.name.lower().endswith(NIFTI)]
    for path in volumes:
        if not path.is_file():
            raise InputError(f"{path}: no such file")
    files = [find_files([p for p in paths if p not in volumes]) for paths in (real, anatomy)]

    def read(paths: list[Path]) -> list[FullScan]:
        return (
            read_scans(paths, lambda path, total: evenly_spaced(total, preset.slices))
            if paths
            else []
        )

    held_out: dict[str, list[Slice]] = {}
    for source in sources:
        if source.split != "train":
            held_out.setdefault(contrast_of(source), []).extend(
                _middle(load_slices([source], cache), preset.slices)
            )
    missing = [name for name in CONTRASTS if name.upper() not in held_out]
    others = {
        path.name.split(".")[0]: _middle(load_slices(find_sources([path]), cache), preset.slices)
        for path in volumes
    }
    return Scans(
        [_scanned(name, own, preset, seed) for name, own in held_out.items()],
        [_phantom(name, preset, seed) for name in missing],
        read(files[0]),
        read(files[1]) + [_scanned(name, own, preset, seed) for name, own in others.items()],
    )


def trials(scans: Scans, preset: Preset) -> Iterator[Trial]:
    """Every trial once, in the order of SHIFTS."""
    trained, wide = preset.training.accelerations, preset.training.calibration
    inside, beyond, mask, contrast, anatomy, real = (
        Trial(shift, "", acceleration=preset.acceleration, calibration=wide) for shift in SHIFTS
    )
    for scan in scans.held_out:
        for factor in trained:
            yield replace(inside, scan=scan.name, acceleration=factor)
        for factor in preset.further:
            width = preset.narrow if factor >= NARROW_FROM else wide
            yield replace(beyond, scan=scan.name, acceleration=factor, calibration=width)
        for kind, axis in MASKS:
            yield replace(mask, scan=scan.name, mask=kind, axis=axis)
    for scan in (*scans.held_out, *scans.phantoms):
        yield replace(contrast, scan=scan.name)
    for scan in scans.anatomy:
        yield replace(anatomy, scan=scan.name)
    for scan in scans.real:
        for factor in trained:
            yield replace(real, scan=scan.name, acceleration=factor)


def contrast_of(source: Source) -> str:
    """T1, T2, FLAIR, ...: a manifest's T1W is T1."""
    return source.contrast.upper().removesuffix("W") or "UNKNOWN"


def _middle(slices: Sequence[Slice], count: int) -> list[Slice]:
    """So many of a volume's slices, from its inner 70 %."""
    at = np.linspace(0.15, 0.85, count + 2)[1:-1] * (len(slices) - 1)
    return [slices[round(i)] for i in at]


def _scanned(name: str, slices: Sequence[Slice], preset: Preset, seed: int) -> FullScan:
    made: dict[int, Image] = {}
    for index, own in enumerate(slices):
        rng = np.random.default_rng([seed, 2, zlib.crc32(name.encode()), index])
        size = preset.training
        made[index] = simulated_kspace(own.image, size.side, size.coils, rng)
    return FullScan(name, made)


def _phantom(contrast: str, preset: Preset, seed: int) -> FullScan:
    """Slices of a simulated head, each of another one."""
    size = preset.training
    made = {}
    for index in range(preset.slices):
        scan = SimulatedScan(
            (size.side, size.side), size.coils, contrast=contrast, seed=seed + index
        )
        rng = np.random.default_rng([seed, 3, index])
        made[index] = simulated_kspace(scan.image[0], size.side, size.coils, rng)
    return FullScan(f"{contrast.upper()} phantom", made)
