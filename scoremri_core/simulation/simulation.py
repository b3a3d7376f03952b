"""Simulated multi-coil scan of the head phantom with known image, coil maps and noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import ismrmrd
import numpy as np
import numpy.typing as npt
from ismrmrd.hdf5 import acquisition_header_dtype
from ismrmrd.xsd import ismrmrdHeader

from scoremri_core.mri.fourier import resize, to_kspace
from scoremri_core.scans.flags import COUNTERS_AND_AVERAGE, NOISE, REVERSE, flag_bits
from scoremri_core.simulation.parameters import ScanParameters
from scoremri_core.simulation.phantom import HEAD_MM, head_slice
from scoremri_core.simulation.receive_coils import loop_sensitivities
from scoremri_core.simulation.simulated_header import simulated_header

SLICE_MM = 4.0
SPACING_MM = 5.0
SLAB_MM = 160.0  # maximal thickness of a 3D scan
SLAB_EDGE = 0.15  # fraction of the partitions at either end where the excitation tapers off
DWELL_US = 5.0
NOISE_DWELL_US = 12.5
NOISE_BANDWIDTH = 0.79  # relativeReceiverNoiseBandwidth
NOISE_SAMPLES = 4096  # minimum over all noise readouts

# First and last flags, and the counters that are equal between them.
BOUNDARIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("ENCODE_STEP1", ("kspace_encode_step_2", "segment", *COUNTERS_AND_AVERAGE)),
    ("SLICE", COUNTERS_AND_AVERAGE),
    ("REPETITION", ("repetition",)),
    ("MEASUREMENT", ()),
)


@dataclass(frozen=True)
class SimulatedScan(ScanParameters):
    """Fully sampled scan of the phantom, generated slice by slice as it is read.

    K-space is the orthonormal FFT of coil maps times image plus noise, with sum |S|^2 = 1 over
    coils, so that `image` is the perfect reconstruction. Noise readouts precede the imaging lines;
    their covariance differs from that of the data by dwell time and bandwidth, which
    `scoremri_core.mri.noise.covariance.covariance_from_scan` corrects.

    Raises
    ------
    InputError
        A parameter is out of range.
    """

    name: str = field(default="simulated scan", init=False)

    @property
    def pixel(self) -> tuple[float, float]:
        """Pixel size (y, x) in mm; without `fov`, square pixels that fit the head with a margin."""
        if self.fov is not None:
            return self.fov[0] / self.matrix[0], self.fov[1] / self.matrix[1]
        side = 1.14 * max(mm / n for mm, n in zip(HEAD_MM, self.matrix, strict=True))
        return side, side

    @property
    def lines(self) -> int:
        """Phase-encode lines with phase oversampling."""
        return round(self.matrix[0] * self.phase_oversampling)

    @property
    def spacing(self) -> float:
        """Distance of slices or partitions in mm."""
        return min(SPACING_MM, SLAB_MM / self.partitions) if self.partitions > 1 else SPACING_MM

    @property
    def heights(self) -> npt.NDArray[Any]:
        """Position of each slice or partition in mm."""
        if self.partitions > 1:
            return (np.arange(self.partitions) - self.partitions // 2) * self.spacing
        return (np.arange(self.slices) - (self.slices - 1) / 2) * self.spacing

    @property
    def contrasts(self) -> list[str]:
        """Names of the contrasts, by counter."""
        return [contrast.strip() for contrast in self.contrast.split(",")]

    @property
    def image(self) -> npt.NDArray[Any]:
        """True image, (slice, y, x), or (contrast, slice, y, x) of several contrasts."""
        images = resize(self._images, self.matrix[:1], (-2,))
        return images if len(images) > 1 else images[0]

    @property
    def coil_maps(self) -> npt.NDArray[Any]:
        """True coil maps, (slice, coil, y, x), with sum |S|^2 = 1 over coils."""
        maps: npt.NDArray[Any] = resize(self._maps, self.matrix[:1], (-2,))
        return maps

    @cached_property
    def noise_covariance(self) -> npt.NDArray[Any]:
        """E[n n^H] of the imaging data, (coil, coil): correlated neighbours, different gains."""
        rng = np.random.default_rng((self.seed, 1))
        coupling = np.eye(self.coils, dtype=complex)
        for distance, strength in ((1, 0.3), (2, 0.12)):
            phases = np.exp(2j * np.pi * rng.uniform(size=(self.coils, 1)))
            coupling += strength * phases * np.roll(np.eye(self.coils), distance, axis=1)
        coupling *= rng.uniform(0.8, 1.25, (self.coils, 1))
        covariance = coupling @ coupling.conj().T
        return covariance * (2 / self.snr**2 / np.mean(np.diag(covariance).real))

    @property
    def truth(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays of the truth, by path in the file."""
        return {
            "truth/image": self.image,
            "truth/coil_maps": self.coil_maps,
            "truth/noise_covariance": self.noise_covariance,
        }

    @cached_property
    def header(self) -> ismrmrdHeader:
        """ISMRMRD header."""
        return simulated_header(self, NOISE_BANDWIDTH, SLICE_MM)

    def heads(self) -> npt.NDArray[Any]:
        """Return the headers of all acquisitions, noise readouts first, as a structured array.

        Returns
        -------
        structured array, (acquisition,)
        """
        nx = self.matrix[1] * self.oversampling
        noise = -(-NOISE_SAMPLES // nx)
        counters = self._counters()
        heads = np.zeros(noise + len(counters["slice"]), acquisition_header_dtype)
        imaging = heads[noise:]
        heads["version"] = 1
        heads["measurement_uid"] = 1
        heads["scan_counter"] = np.arange(len(heads)) + 1
        heads["acquisition_time_stamp"] = 17_280_000 + 2 * np.arange(len(heads))
        heads["number_of_samples"] = nx
        heads["available_channels"] = heads["active_channels"] = self.coils
        heads["channel_mask"][:, 0] = (1 << min(self.coils, 64)) - 1
        heads["channel_mask"][:, 1] = (1 << max(self.coils - 64, 0)) - 1
        heads["sample_time_us"][:noise] = NOISE_DWELL_US
        heads["flags"][:noise] = NOISE
        heads["read_dir"], heads["phase_dir"], heads["slice_dir"] = np.eye(3)
        imaging["sample_time_us"] = DWELL_US
        imaging["center_sample"] = nx // 2
        for counter, values in counters.items():
            imaging["idx"][counter] = values
        if self.partitions == 1:
            imaging["position"][:, 2] = self.heights[counters["slice"]]
        for name, shared in BOUNDARIES:
            keys = np.stack([np.zeros(len(imaging)), *(counters[c] for c in shared)], axis=-1)
            group = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
            for side, order in (("FIRST", slice(None)), ("LAST", slice(None, None, -1))):
                flag = getattr(ismrmrd, f"ACQ_{side}_IN_{name}", None)
                if flag is not None:
                    ends = np.unique(group[order], return_index=True)[1]
                    imaging["flags"][order][ends] |= np.uint64(flag_bits(flag))
        if self.alternating:
            backwards = counters["kspace_encode_step_1"] % 2 == 1
            imaging["flags"][backwards] |= np.uint64(REVERSE)
            imaging["center_sample"][backwards] = nx - 1 - nx // 2
        return heads

    def __iter__(self) -> Iterator[ismrmrd.Acquisition]:
        """Yield the acquisitions in the order of `heads`."""
        heads = self.heads()
        nx = self.matrix[1] * self.oversampling
        rng = np.random.default_rng((self.seed, 2))
        root = np.linalg.cholesky(self.noise_covariance)
        scan_scale = np.sqrt(DWELL_US / NOISE_DWELL_US * NOISE_BANDWIDTH)
        cache: dict[tuple[int, int], npt.NDArray[Any]] = {}
        for head in heads:
            noise = _noise(rng, root, nx)
            if head["flags"] & np.uint64(NOISE):
                yield _acquisition(head, scan_scale * noise)
                continue
            idx = head["idx"]
            key = int(idx["contrast"]), int(idx["slice"])
            if key not in cache:
                if not self.interleaved:
                    cache.clear()
                cache[key] = self._kspace(*key)
            data = cache[key][:, idx["kspace_encode_step_2"], idx["kspace_encode_step_1"]] + noise
            backwards = head["flags"] & np.uint64(REVERSE)
            yield _acquisition(head, data[:, ::-1] if backwards else data)

    def _counters(self) -> dict[str, npt.NDArray[Any]]:
        """Return the counters of the lines in order of acquisition."""
        line = np.arange(self.lines)
        line = line[np.argsort(line % self.segments, kind="stable")]
        outer = {"repetition": self.repetitions, "set": self.sets, "phase": self.phases}
        frames = {"contrast": len(self.contrasts), "slice": self.slices}
        inner = {
            "average": self.averages,
            "kspace_encode_step_2": self.partitions,
            "kspace_encode_step_1": self.lines,
        }
        loops = {**outer, **inner, **frames} if self.interleaved else {**outer, **frames, **inner}
        values = np.indices(tuple(loops.values())).reshape(len(loops), -1)
        counters = dict(zip(loops, values, strict=True))
        counters["kspace_encode_step_1"] = line[counters["kspace_encode_step_1"]]
        counters["segment"] = counters["kspace_encode_step_1"] % self.segments
        return counters

    @property
    def _rows(self) -> int:
        """Rows of the drawn image: one encoded field of view, or three to simulate aliasing."""
        return self.lines * (1 if self.fov is None else 3)

    @cached_property
    def _images(self) -> npt.NDArray[Any]:
        shape = self._rows, self.matrix[1]
        fov = [n * side for n, side in zip(shape, self.pixel, strict=True)]
        images = np.stack(
            [
                [head_slice(shape, fov, z, contrast, self.seed) for z in self.heights]
                for contrast in self.contrasts
            ]
        )
        if self.partitions > 1:
            inside = 0.5 + np.minimum(np.arange(self.partitions), np.arange(self.partitions)[::-1])
            depth = np.minimum(inside / (SLAB_EDGE * self.partitions), 1)
            images *= (np.sin(np.pi / 2 * depth) ** 2)[:, None, None].astype(np.float32)
        return images

    @cached_property
    def _maps(self) -> npt.NDArray[Any]:
        shape = self._rows, self.matrix[1]
        y, x = ((np.arange(n) - n // 2) * side for n, side in zip(shape, self.pixel, strict=True))
        return np.stack([loop_sensitivities(y, x, z, self.coils) for z in self.heights])

    def _kspace(self, contrast: int, number: int) -> npt.NDArray[Any]:
        """Return the noise-free k-space (coil, z, y, x) of a slice or volume."""
        volume = self.partitions > 1
        slices = slice(None) if volume else slice(number, number + 1)
        coils = (self._maps[slices] * self._images[contrast, slices, None]).swapaxes(0, 1)
        # the outer two of three fields of view alias
        aliased = coils.reshape(*coils.shape[:2], -1, self.lines, coils.shape[-1]).sum(axis=2)
        nx = self.matrix[1] * self.oversampling
        axes = (-3, -2, -1) if volume else (-2, -1)
        kspace: npt.NDArray[Any] = to_kspace(resize(aliased, (nx,), (-1,)), axes)
        return kspace


def _noise(rng: np.random.Generator, root: npt.NDArray[Any], samples: int) -> npt.NDArray[Any]:
    white = rng.normal(size=(len(root), samples)) + 1j * rng.normal(size=(len(root), samples))
    return np.asarray(root @ white / np.sqrt(2))


def _acquisition(head: Any, data: npt.NDArray[Any]) -> ismrmrd.Acquisition:
    return ismrmrd.Acquisition(head.tobytes(), np.ascontiguousarray(data, np.complex64))
