"""What a reconstruction is: posterior samples, their moments, and how they came about."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scoremri_core.errors import InputError
from scoremri_core.mri.fourier import resample

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Info:
    """What was run.

    The last six hold an entry for each slice; of a volume, whose positions share them, one.

    Attributes
    ----------
    sampler, samples, prior, seed : as asked for.
    steps : noise levels visited.
    evaluations : denoiser evaluations per sample.
    seconds : time of the whole call.
    effective_samples : independent samples whose mean would stray as far from the posterior mean;
        infinite where the samples' random numbers balance.
    variance_scale, inflation : factors on the prior's error variance (see `PosteriorOptions`); None
        with samplers that have none.
    unsampled_fraction : of the matrix that has no sample near, as partial Fourier leaves it.
    sigma_n : sd of each real component of the k-space noise that the likelihood allowed for, root
        mean square over coils and measured samples; where these were averaged unequally, of those
        averaged least.
    sigma_thermal : sd of the noise as it was given, or as the edges of k-space show it.
    misfit : mean square of what the samples leave of the measured values, over that of the
        thermal noise: about 1 where noise is all that the model does not explain.
    inconsistent_lines : share of the measured samples that lie in lines of k-space which contradict
        the others, by more than twice the noise of these, and so count less: 0 in a sound scan;
        NaN where nothing was sampled.
    scale : image value that the prior saw as 1.
    fallback : why a classical image was sent instead, or None.
    """

    sampler: str
    samples: int
    prior: str
    seed: int
    steps: int
    evaluations: int
    seconds: float = 0.0
    effective_samples: float = float("nan")
    variance_scale: float | None = None
    inflation: float | None = None
    unsampled_fraction: tuple[float, ...] = ()
    sigma_n: tuple[float, ...] = ()
    sigma_thermal: tuple[float, ...] = ()
    misfit: tuple[float, ...] = ()
    inconsistent_lines: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    fallback: tuple[str | None, ...] = ()

    @property
    def unacquired(self) -> float:
        """Mean of `unsampled_fraction`."""
        return float(np.mean(self.unsampled_fraction or np.nan))

    @property
    def reason(self) -> str | None:
        """Why the first slice that fell back did, None where none did."""
        return next((reason for reason in self.fallback if reason), None)

    @property
    def inconsistency(self) -> str | None:
        """What lines that contradict each other mean, None where there are none."""
        return describe_inconsistent_lines(
            max((share for share in self.inconsistent_lines if share > 0), default=0.0)
        )


REFERENCES = ("zero_filled", "classical")  # images without a prior that can be asked for

PER_SLICE = (
    "unsampled_fraction",
    "sigma_n",
    "sigma_thermal",
    "misfit",
    "inconsistent_lines",
    "scale",
    "fallback",
)


def describe_inconsistent_lines(inconsistent_lines: float) -> str | None:
    """That share of the measured samples as a sentence, None where it is zero or not known."""
    if not inconsistent_lines > 0:
        return None
    return (
        f"{100 * inconsistent_lines:.2g} % of the measured samples lie in lines of k-space that "
        "contradict the others and count less: the patient may have moved, or readouts are corrupt"
    )


@dataclass(frozen=True, repr=False)
class Reconstruction:
    """Posterior samples and their moments, in units of the k-space under an orthonormal FFT.

    Attributes
    ----------
    mean : complex64 (slice, y, x), posterior mean, or the classical image of a slice that could
        not be sampled.
    std : float32 (slice, y, x), posterior standard deviation of the complex value,
        sqrt(sum |x_i - mean|^2 / (S - S / E)) with E the effective samples (S where they are
        independent); NaN where it is not known.
    samples : complex64 (slice, sample, y, x); NaN in a slice that could not be sampled.
    maps : complex64 (slice, set, coil, y, x); NaN in a slice without maps.
    info : what was run.
    references : images without a prior by name, complex64 (slice, y, x), where they were asked for.
    """

    mean: NDArray[np.complex64]
    std: NDArray[np.float32]
    samples: NDArray[np.complex64]
    maps: NDArray[np.complex64]
    info: Info
    references: dict[str, NDArray[np.complex64]] = field(default_factory=dict)

    @property
    def magnitude(self) -> NDArray[np.float32]:
        """Magnitude of the mean, (slice, y, x)."""
        return abs(self.mean)

    @property
    def magnitude_std(self) -> NDArray[np.float32]:
        """Posterior standard deviation of the magnitude, (slice, y, x).

        It compares with the error of `magnitude`, as `std` does with that of the complex `mean`.
        NaN where it is not known.
        """
        spread: Any = standard_deviation(
            np.abs(np.asarray(self.samples)), self.info.effective_samples
        )
        if isinstance(self.mean, np.ndarray):
            return spread
        return self.mean.new_tensor(spread, dtype=self.std.dtype)

    def select(self, index: int) -> Reconstruction:
        """One slice of a stack, as if it had been reconstructed alone."""
        only = slice(index, index + 1)
        info = self.info
        own = {name: getattr(info, name)[only] for name in PER_SLICE}
        return Reconstruction(
            self.mean[only],
            self.std[only],
            self.samples[only],
            self.maps[only],
            replace(info, seconds=info.seconds / len(self.mean), **own),
            {name: image[only] for name, image in self.references.items()},
        )

    def as_tensors(self, device: torch.device) -> Reconstruction:
        """The same with torch tensors in place of arrays."""
        import torch

        arrays: dict[str, Any] = {
            name: torch.from_numpy(getattr(self, name)).to(device)
            for name in ("mean", "std", "samples", "maps")
        }
        references: Any = {k: torch.from_numpy(v).to(device) for k, v in self.references.items()}
        return replace(self, **arrays, references=references)

    def plot(self, index: int = 0) -> Any:
        """Draw magnitudes of mean and one sample, and their standard deviation, with scales.

        Parameters
        ----------
        index : of the slice.

        Returns
        -------
        matplotlib.figure.Figure, which a notebook shows; `savefig` writes it.
        """
        from matplotlib.figure import Figure

        sd = "posterior sd of the magnitude"
        panels = {"posterior mean": self.mean[index], sd: self.magnitude_std[index]}
        if self.samples.shape[1]:
            panels["a posterior sample"] = self.samples[index, 0]
        figure = Figure(figsize=(4 * len(panels), 4), layout="constrained")
        top = float(np.nanmax(np.abs(np.asarray(self.mean[index]))))
        for place, (title, image) in enumerate(panels.items(), start=1):
            axes = figure.add_subplot(1, len(panels), place)
            scale: dict[str, Any] = {} if title == sd else {"vmin": 0, "vmax": top or 1}
            drawn = axes.imshow(np.abs(np.asarray(image)), cmap="gray", **scale)
            axes.set(title=title, xlabel="x (readout)", ylabel="y (phase encoding)")
            figure.colorbar(drawn, ax=axes, label="units of k-space", shrink=0.8)
        return figure

    def to_nifti(
        self,
        path: str | os.PathLike[str],
        what: str = "mean",
        *,
        voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
        affine: ArrayLike | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write magnitudes as NIfTI, (x, y, slice), or (x, y, slice, sample) of samples.

        Parameters
        ----------
        path : ends with .nii or .nii.gz.
        what : "mean", "std" (both of the magnitude), "complex_std" or "samples".
        voxel_size : (x, y, slice) in mm; x then increases to the left, y to the back and slices to
            the head, with the origin in the centre of the volume.
        affine : (4, 4), from the indices (x, y, slice) to mm in RAS, in place of `voxel_size`.
        overwrite : replace a file that is there already.

        Raises
        ------
        InputError : another `what`, sizes that are not three, a file that is there already, or
            NiBabel missing (the extra `export`).
        """
        from scoremri_core.images import RESEARCH_ONLY
        from scoremri_core.images.nifti import RAS_OF_LPS, write_nifti
        from scoremri_core.paths import check_absent, check_writable, placing

        names = {
            "mean": "magnitude",
            "std": "magnitude_std",
            "complex_std": "std",
            "samples": "samples",
        }
        if what not in names:
            raise InputError(f"what {what!r}: expected one of {', '.join(names)}")
        check_writable(path)
        check_absent(path, overwrite, "overwrite=True")
        pixels = np.abs(np.asarray(getattr(self, names[what])))
        array = np.moveaxis(pixels, (-1, -2, 0), (0, 1, 2))
        if affine is None:
            sizes = np.asarray(voxel_size, float)
            if sizes.shape != (3,) or not (sizes > 0).all():
                raise InputError(f"voxel_size {voxel_size}: expected three numbers above 0")
            affine = np.diag([*sizes, 1.0])
            affine[:3, 3] = -sizes * (np.array(array.shape[:3]) // 2)
            affine = RAS_OF_LPS @ affine
        with placing(Path(path).parent) as folder:  # the name ends with two suffixes
            write_nifti(
                folder / Path(path).name, array, affine, f"scoremri {what}; {RESEARCH_ONLY}"
            )

    def __repr__(self) -> str:
        """In one line: the arrays are too long to be shown."""
        info = self.info
        fallen = sum(reason is not None for reason in info.fallback)
        done = f"{info.samples} samples by {info.sampler}, prior {info.prior}"
        told = f", {fallen} of them classical: {info.reason}" if fallen else ""
        slices, ny, nx = self.mean.shape
        return f"<Reconstruction of {slices} x {ny} x {nx}: {done}{told}>"

    def resized(
        self, shape: tuple[int, ...], fov_fraction: tuple[float, ...] = (1.0, 1.0)
    ) -> Reconstruction:
        """The same on another matrix: field of view cropped, then interpolated.

        Parameters
        ----------
        shape : (y, x) of the result, or (z, y, x) of a volume.
        fov_fraction : field of view of the result over the present one, like `shape`.
        """
        axes = (-2, -1) if len(shape) == 2 else (0, -2, -1)
        present = tuple(self.mean.shape[axis] for axis in axes)
        if tuple(shape) == present and set(fov_fraction) == {1.0}:
            return self
        samples = resample(self.samples, shape, fov_fraction, axes)
        return replace(
            self,
            mean=resample(self.mean, shape, fov_fraction, axes),
            std=standard_deviation(samples, self.info.effective_samples),
            samples=samples,
            references={
                name: resample(image, shape, fov_fraction, axes)
                for name, image in self.references.items()
            },
        )


def standard_deviation(samples: NDArray[Any], effective_samples: float) -> NDArray[np.float32]:
    """Over the sample axis (slice, sample, y, x); NaN where there are fewer than two."""
    count = samples.shape[1]
    real = samples.real.dtype
    if count < 2:
        return np.full((samples.shape[0], *samples.shape[2:]), np.nan, real)
    # whatever the unit, no square leaves the range of float32
    unit = real.type(np.max(np.abs(samples), initial=0, where=np.isfinite(samples))) or 1
    return (samples / unit).std(1, ddof=count / effective_samples).astype(real) * unit
