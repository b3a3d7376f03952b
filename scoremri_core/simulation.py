"""A multi-coil scan of the head phantom whose image, coil maps and noise are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import ismrmrd
import numpy as np
import numpy.typing as npt
from ismrmrd import xsd
from ismrmrd.hdf5 import acquisition_header_dtype

from scoremri_core.errors import InputError
from scoremri_core.fourier import resize, to_kspace
from scoremri_core.phantom import HEAD_MM, head_slice
from scoremri_core.scans import flag_bits

STRIP_MM = 15.0  # width of a coil's conductor
SLICE_MM = 4.0
SPACING_MM = 5.0
DWELL_US = 5.0
NOISE_DWELL_US = 12.5
NOISE_BANDWIDTH = 0.79  # relativeReceiverNoiseBandwidth
NOISE_SAMPLES = 4096  # at least, over all noise readouts
FIRST = flag_bits(ismrmrd.ACQ_FIRST_IN_ENCODE_STEP1, ismrmrd.ACQ_FIRST_IN_SLICE)
LAST = flag_bits(ismrmrd.ACQ_LAST_IN_ENCODE_STEP1, ismrmrd.ACQ_LAST_IN_SLICE)


@dataclass(frozen=True)
class SimulatedScan:
    """A fully sampled scan of the phantom, made slice by slice as it is read.

    k-space is the orthonormal FFT of coil maps times image plus noise, the coil maps having
    sum |S|^2 = 1, so that `image` is what a perfect reconstruction returns. Noise readouts come
    first; their covariance differs from that of the data by dwell time and bandwidth, as
    `scoremri_core.noise.covariance_from_scan` undoes.

    Parameters
    ----------
    matrix : (y, x) of the image: phase-encode lines and readout samples without oversampling
    coils, slices, repetitions : how many of each
    oversampling : readout oversampling factor
    snr : grey-matter signal over the standard deviation of each real component of the noise, root
        mean square over coils
    contrast : of the phantom: t1, t2 or flair
    seed : of anatomy and noise

    Raises
    ------
    InputError
        For a number out of range.
    """

    matrix: tuple[int, int] = (192, 192)
    coils: int = 8
    slices: int = 1
    repetitions: int = 1
    oversampling: int = 2
    snr: float = 30.0
    contrast: str = "t2"
    seed: int = 0
    name: str = field(default="simulated scan", init=False)

    def __post_init__(self) -> None:
        """Refuse numbers that make no scan."""
        for what, value, top in (
            ("matrix", min(self.matrix), 1024),
            ("matrix", max(self.matrix), 1024),
            ("coils", self.coils, 128),
            ("slices", self.slices, 30),
            ("repetitions", self.repetitions, 65535),
            ("oversampling", self.oversampling, 8),
        ):
            least = 16 if what == "matrix" else 1
            if not least <= value <= top:
                raise InputError(f"{what} {value}: expected {least} to {top}")
        if not 0 < self.snr < np.inf:
            raise InputError(f"snr {self.snr:g}: expected a positive number")

    @property
    def pixel(self) -> float:
        """Side of the square pixels in mm, so that the head fits the matrix with a margin."""
        return 1.14 * max(mm / n for mm, n in zip(HEAD_MM, self.matrix, strict=True))

    @property
    def heights(self) -> npt.NDArray[Any]:
        """Position of each slice in mm."""
        return (np.arange(self.slices) - (self.slices - 1) / 2) * SPACING_MM

    @cached_property
    def image(self) -> npt.NDArray[Any]:
        """The true image (slice, y, x)."""
        fov = [n * self.pixel for n in self.matrix]
        return np.stack(
            [head_slice(self.matrix, fov, z, self.contrast, self.seed) for z in self.heights]
        )

    @cached_property
    def coil_maps(self) -> npt.NDArray[Any]:
        """The true coil maps (slice, coil, y, x), sum over coils of |S|^2 = 1."""
        y, x = ((np.arange(n) - n // 2) * self.pixel for n in self.matrix)
        return np.stack([loop_sensitivities(y, x, z, self.coils) for z in self.heights])

    @cached_property
    def noise_covariance(self) -> npt.NDArray[Any]:
        """E[n n^H] (coil, coil) of the imaging data: neighbours correlate, gains differ."""
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
        """The known truth by its path in the file."""
        return {
            "truth/image": self.image,
            "truth/coil_maps": self.coil_maps,
            "truth/noise_covariance": self.noise_covariance,
        }

    @cached_property
    def header(self) -> Any:
        """The ISMRMRD header."""
        return _header(self)

    def heads(self) -> npt.NDArray[Any]:
        """Headers of all acquisitions: noise readouts, then repetitions of slices of lines."""
        ny, nx = self.matrix[0], self.matrix[1] * self.oversampling
        noise = -(-NOISE_SAMPLES // nx)
        heads = np.zeros(noise + self.repetitions * self.slices * ny, acquisition_header_dtype)
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
        heads["flags"][:noise] = flag_bits(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
        heads["read_dir"], heads["phase_dir"], heads["slice_dir"] = np.eye(3)
        imaging["sample_time_us"] = DWELL_US
        imaging["center_sample"] = nx // 2
        counted = np.indices((self.repetitions, self.slices, ny)).reshape(3, -1)
        for counter, values in zip(
            ("repetition", "slice", "kspace_encode_step_1"), counted, strict=True
        ):
            imaging["idx"][counter] = values
        imaging["position"][:, 2] = self.heights[counted[1]]
        by_slice = imaging["flags"].reshape(self.repetitions, self.slices, ny)
        by_slice[:, :, 0] |= FIRST
        by_slice[:, :, -1] |= LAST
        by_slice[:, 0, 0] |= flag_bits(ismrmrd.ACQ_FIRST_IN_REPETITION)
        by_slice[:, -1, -1] |= flag_bits(ismrmrd.ACQ_LAST_IN_REPETITION)
        by_slice[-1, -1, -1] |= flag_bits(ismrmrd.ACQ_LAST_IN_MEASUREMENT)
        imaging["flags"] = by_slice.ravel()
        return heads

    def __iter__(self) -> Iterator[ismrmrd.Acquisition]:
        """Make the acquisitions in the order of `heads`."""
        heads = iter(self.heads())
        ny, nx = self.matrix[0], self.matrix[1] * self.oversampling
        rng = np.random.default_rng((self.seed, 2))
        root = np.linalg.cholesky(self.noise_covariance)
        scan_scale = np.sqrt(DWELL_US / NOISE_DWELL_US * NOISE_BANDWIDTH)
        for _ in range(-(-NOISE_SAMPLES // nx)):
            yield _acquisition(next(heads), scan_scale * _noise(rng, root, nx))
        for _ in range(self.repetitions):
            for image, maps in zip(self.image, self.coil_maps, strict=True):
                kspace = to_kspace(resize(maps * image, (ny, nx)))
                for line in range(ny):
                    yield _acquisition(next(heads), kspace[:, line] + _noise(rng, root, nx))


def loop_sensitivities(
    y: npt.NDArray[Any], x: npt.NDArray[Any], z: float, coils: int
) -> npt.NDArray[Any]:
    """Receive sensitivities of circular loops around the head, from the law of Biot and Savart.

    Parameters
    ----------
    y, x : coordinates in mm of the rows and columns of the image, z its height
    coils : loops, evenly around the head and by turns a little above and below z = 0

    Returns
    -------
    (coil, y, x), Bx - i By of a unit current, normalised to sum |S|^2 = 1
    """
    turn = np.linspace(0, 2 * np.pi, 33)[:-1]
    points = np.stack(np.broadcast_arrays(x[None], y[:, None], np.float64(z)), axis=-1)
    maps = np.zeros((coils, len(y), len(x)), complex)
    loop = np.clip(1.3 * np.pi * 120 / coils, 28, 85)
    for coil, angle in enumerate(2 * np.pi * (np.arange(coils) + 0.5) / coils):
        middle = np.array([118 * np.cos(angle), 136 * np.sin(angle), 25 * (-1) ** coil])
        across, up = np.array([-np.sin(angle), np.cos(angle), 0]), np.array([0, 0, 1])
        for t in turn:
            wire = middle + loop * (np.cos(t) * across + np.sin(t) * up)
            element = -np.sin(t) * across + np.cos(t) * up
            away = points - wire
            field = (
                np.cross(element, away)
                / (np.sum(away**2, axis=-1, keepdims=True) + STRIP_MM**2) ** 1.5
            )
            maps[coil] += field[..., 0] - 1j * field[..., 1]
    return (maps / np.linalg.norm(maps, axis=0)).astype(np.complex64)


def _noise(rng: np.random.Generator, root: npt.NDArray[Any], samples: int) -> npt.NDArray[Any]:
    white = rng.normal(size=(len(root), samples)) + 1j * rng.normal(size=(len(root), samples))
    return np.asarray(root @ white / np.sqrt(2))


def _acquisition(head: Any, data: npt.NDArray[Any]) -> ismrmrd.Acquisition:
    return ismrmrd.Acquisition(head.tobytes(), np.ascontiguousarray(data, np.complex64))


def _header(scan: SimulatedScan) -> Any:
    ny, nx = scan.matrix

    def space(x: int) -> Any:
        return xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(x=x, y=ny, z=1),
            fieldOfView_mm=xsd.fieldOfViewMm(x=x * scan.pixel, y=ny * scan.pixel, z=SLICE_MM),
        )

    def limit(count: int, center: int = 0) -> Any:
        return xsd.limitType(minimum=0, maximum=count - 1, center=center)

    return xsd.ismrmrdHeader(
        measurementInformation=xsd.measurementInformationType(
            measurementID="1",
            patientPosition=xsd.patientPositionType.HFS,
            protocolName=f"head phantom {scan.contrast}",
        ),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemVendor="scoremri",
            systemModel="simulation",
            relativeReceiverNoiseBandwidth=NOISE_BANDWIDTH,
            receiverChannels=scan.coils,
        ),
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=123_200_000),
        encoding=[
            xsd.encodingType(
                encodedSpace=space(nx * scan.oversampling),
                reconSpace=space(nx),
                encodingLimits=xsd.encodingLimitsType(
                    kspace_encoding_step_1=limit(ny, ny // 2),
                    kspace_encoding_step_2=limit(1),
                    slice=limit(scan.slices),
                    repetition=limit(scan.repetitions),
                ),
                trajectory=xsd.trajectoryType.CARTESIAN,
            )
        ],
    )
