"""Result of a reconstruction: posterior samples, their moments, and parameters of the run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scoremri_core.errors import InputError
from scoremri_core.mri.fourier import resample
from scoremri_core.text import counted

if TYPE_CHECKING:
    import torch

REFERENCES = ("zero_filled", "classical", "g_factor")  # without a prior, on request

PER_SLICE = (  # fields of Info with one entry per slice
    "unsampled_fraction",
    "sigma_n",
    "sigma_thermal",
    "misfit",
    "inconsistent_lines",
    "scale",
    "fallback",
)


@dataclass(frozen=True)
class Info:
    """Parameters and diagnostics of a reconstruction.

    The tuples hold one entry per slice; for a volume, a single entry.

    Attributes
    ----------
    sampler : str
    samples : int
        Posterior samples per slice.
    prior : str
    prior_measured : bool or None
        Whether the card of the prior has its measured error; None without a card.
    seed : int
        Seed of the first slice.
    steps : int
        Noise levels.
    evaluations : int
        Denoiser evaluations per sample.
    seconds : float
        Duration of the call.
    effective_samples : float
        Number of independent samples whose mean has the same variance; infinite for the sampler's
        balanced random numbers.
    variance_scale, inflation : float or None
        Factors on the error variance of the prior (see `PosteriorOptions`); None if the sampler
        has none.
    unsampled_fraction : tuple of float
        Fraction of k-space far from any sample, as in partial Fourier.
    sigma_n : tuple of float
        Sd of each real component of the k-space noise in the likelihood, root mean square over
        coils and measured samples; for unequal averages, of the samples averaged least.
    sigma_thermal : tuple of float
        Sd of the noise given by the caller or estimated from the edges of k-space.
    misfit : tuple of float
        Mean squared residual of the samples over the variance of the thermal noise; about 1 if
        noise accounts for the whole residual.
    inconsistent_lines : tuple of float
        Fraction of the measured samples in k-space lines whose noise sd is more than twice that of
        the others; these lines are down-weighted. NaN if no samples were drawn.
    scale : tuple of float
        Image value that the prior sees as 1.
    fallback : tuple of str or None
        Why the slice holds a classical image, or None.
    """

    sampler: str
    samples: int
    prior: str
    seed: int
    steps: int
    evaluations: int
    seconds: float = 0.0
    prior_measured: bool | None = None
    effective_samples: float = field(default=float("nan"), repr=False)
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
        """First reason in `fallback`, or None."""
        return next((reason for reason in self.fallback if reason), None)

    @property
    def inconsistency(self) -> str | None:
        """Warning of inconsistent lines, or None."""
        return describe_inconsistent_lines(
            max((f for f in self.inconsistent_lines if f > 0), default=0.0)
        )


def describe_inconsistent_lines(inconsistent_lines: float) -> str | None:
    """Describe the fraction of measured samples in inconsistent lines.

    Parameters
    ----------
    inconsistent_lines : float
        See `Info`.

    Returns
    -------
    str or None
        None if 0 or NaN.
    """
    if not inconsistent_lines > 0:
        return None
    return (
        f"{100 * inconsistent_lines:.2g} % of the measured samples lie in inconsistent k-space "
        "lines, which are down-weighted: the patient may have moved, or readouts are corrupt"
    )


@dataclass(frozen=True, eq=False)
class Sampling:
    """Measured samples and noise of a slice.

    Attributes
    ----------
    mask : bool array, (y, x)
    noise_covariance : complex array, (coil, coil), or None
        E[n n^H], in any unit; None: identity.
    averages : float32 array, (y, x), or None
        Number of averages of each sample; None if all are equal.
    """

    mask: NDArray[np.bool_]
    noise_covariance: NDArray[Any] | None
    averages: NDArray[np.float32] | None = None

    def g_factor(self, maps: NDArray[Any]) -> NDArray[np.float32]:
        """Compute the g-factor of the first set of maps.

        Parameters
        ----------
        maps : complex array, (set, coil, y, x)

        Returns
        -------
        float32 array, (y, x)
            NaN if the maps are not finite.
        """
        if not np.isfinite(maps).all():
            return np.full(self.mask.shape, np.nan, np.float32)
        used = maps[maps.any((1, 2, 3))]  # missing sets are zero
        if not len(used):
            return np.zeros(self.mask.shape, np.float32)
        from scoremri_core.mri.g_factor import g_factor  # needs torch

        return g_factor(used, self.mask, self.noise_covariance, self.averages)[0]


@dataclass(frozen=True, repr=False)
class Reconstruction:
    """Posterior samples and their moments, in units of the k-space under an orthonormal FFT.

    Attributes
    ----------
    mean : complex64 array, (slice, y, x)
        Posterior mean, or the classical image of a slice that could not be sampled.
    std : float32 array, (slice, y, x)
        Posterior standard deviation of the complex value,
        sqrt(sum_i |x_i - mean|^2 / (S - S / E)) for S samples, E of them effective. NaN with fewer
        than two samples.
    samples : complex64 array, (slice, sample, y, x)
        NaN in a slice that could not be sampled.
    maps : complex64 array, (slice, set, coil, y, x)
        Coil maps; NaN in a slice without maps.
    info : Info
        Parameters and diagnostics.
    references : dict of complex64 array, (slice, y, x)
        Images without a prior by name, on request; "g_factor" is float32.
    sampling : tuple of Sampling
        Measured samples and noise of each slice; empty for a volume.
    """

    mean: NDArray[np.complex64]
    std: NDArray[np.float32]
    samples: NDArray[np.complex64]
    maps: NDArray[np.complex64]
    info: Info
    references: dict[str, NDArray[Any]] = field(default_factory=dict)
    sampling: tuple[Sampling, ...] = ()

    def quantiles(self, levels: Sequence[float] = (0.05, 0.95)) -> NDArray[np.float32]:
        """Compute quantiles of the magnitude from its mean and standard deviation.

        The quantile p is max(0, |mean| + t_p sd sqrt(1 + 1/E)), with t_p the quantile of Student's
        t of S - 1 degrees of freedom for S samples, E of them effective: the ends of the intervals
        whose coverage `scoremri evaluate` reports. Eight samples do not determine empirical
        quantiles.

        Parameters
        ----------
        levels : sequence of float
            Between 0 and 1.

        Returns
        -------
        float32 array, (slice, level, y, x)
            NaN with fewer than two samples.

        Raises
        ------
        InputError
            A level that is not between 0 and 1.
        """
        if not all(0 < level < 1 for level in levels):
            raise InputError(f"levels {tuple(levels)}: expected numbers between 0 and 1")
        mean, sd = (np.asarray(each) for each in (self.magnitude, self.magnitude_std))
        variance = predictive_variance(sd, self.info.effective_samples)
        freedom = max(1, np.shape(self.samples)[1] - 1)
        quantiles = [mean + half_width(variance, freedom, 2 * level - 1) for level in levels]
        return np.maximum(np.stack(quantiles, 1), 0).astype(np.float32)

    def g_factor(self) -> NDArray[np.float32]:
        """Compute the g-factor of SENSE with the coil maps, sampling and noise of each slice.

        Returns
        -------
        float32 array, (slice, y, x)
            For two sets of maps, of the first. NaN in a slice without maps.

        Raises
        ------
        InputError
            The coil maps are not kept, as in volumes.
        """
        if "g_factor" in self.references:
            return np.asarray(self.references["g_factor"])
        if not self.sampling or 0 in np.shape(self.maps):
            raise InputError("g_factor: the result has no coil maps, as in volumes")
        pairs = zip(np.asarray(self.maps), self.sampling, strict=True)
        return np.stack([sampling.g_factor(maps) for maps, sampling in pairs])

    @property
    def magnitude(self) -> NDArray[np.float32]:
        """Magnitude of the mean, (slice, y, x)."""
        return abs(self.mean)

    @property
    def magnitude_std(self) -> NDArray[np.float32]:
        """Posterior standard deviation of the magnitude, (slice, y, x).

        Expected error of `magnitude`, as `std` is of the complex `mean`. NaN with fewer than two
        samples.
        """
        spread: Any = standard_deviation(
            np.abs(np.asarray(self.samples)), self.info.effective_samples
        )
        if isinstance(self.mean, np.ndarray):
            return spread
        return self.mean.new_tensor(spread, dtype=self.std.dtype)

    def select(self, index: int) -> Reconstruction:
        """Return one slice of a stack, as its separate reconstruction would be.

        Parameters
        ----------
        index : int

        Returns
        -------
        Reconstruction
        """
        only = slice(index, index + 1)
        info = self.info
        per_slice = {name: getattr(info, name)[only] for name in PER_SLICE}
        return Reconstruction(
            self.mean[only],
            self.std[only],
            self.samples[only],
            self.maps[only],
            replace(info, seconds=info.seconds / len(self.mean), **per_slice),
            {name: image[only] for name, image in self.references.items()},
            self.sampling[only],
        )

    def as_tensors(self, device: torch.device) -> Reconstruction:
        """Return a copy with torch tensors in place of arrays.

        Parameters
        ----------
        device : torch.device

        Returns
        -------
        Reconstruction
        """
        import torch

        arrays: dict[str, Any] = {
            name: torch.from_numpy(getattr(self, name)).to(device)
            for name in ("mean", "std", "samples", "maps")
        }
        references: Any = {k: torch.from_numpy(v).to(device) for k, v in self.references.items()}
        return replace(self, **arrays, references=references)

    def plot(self, index: int = 0) -> Any:
        """Plot the magnitude of the mean, its standard deviation, and one sample.

        Parameters
        ----------
        index : int
            Slice to plot.

        Returns
        -------
        matplotlib.figure.Figure
            Shown by notebooks after `%matplotlib inline`; `savefig` writes it.
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
        path : str or path-like
            Ends in .nii or .nii.gz.
        what : str
            "mean", "std" (both of the magnitude), "complex_mean", "complex_std", "samples",
            "quantiles" (5 and 95 %) or "g_factor". "complex_mean" is complex.
        voxel_size : sequence of float
            (x, y, slice) in mm. x increases to the left, y to the back and slices to the head; the
            origin is the centre of the volume.
        affine : array, (4, 4), optional
            From indices (x, y, slice) to mm in RAS, in place of `voxel_size`.
        overwrite : bool
            Replace an existing file.

        Raises
        ------
        InputError
            Unknown `what`, invalid `voxel_size`, an existing file, or NiBabel (extra `export`) not
            installed.
        """
        from scoremri_core.images import RESEARCH_ONLY
        from scoremri_core.images.nifti import RAS_OF_LPS, write_nifti
        from scoremri_core.paths import check_absent, check_writable, placing

        pictures: dict[str, Callable[[], Any]] = {
            "mean": lambda: self.magnitude,
            "std": lambda: self.magnitude_std,
            "complex_mean": lambda: self.mean,
            "complex_std": lambda: self.std,
            "samples": lambda: np.abs(np.asarray(self.samples)),
            "quantiles": self.quantiles,
            "g_factor": self.g_factor,
        }
        if what not in pictures:
            raise InputError(f"what {what!r}: expected one of {', '.join(pictures)}")
        check_writable(path)
        check_absent(path, overwrite, "overwrite=True")
        array = np.moveaxis(np.asarray(pictures[what]()), (-1, -2, 0), (0, 1, 2))
        if affine is None:
            sizes = np.asarray(voxel_size, float)
            if sizes.shape != (3,) or not (sizes > 0).all():
                raise InputError(f"voxel_size {voxel_size}: expected three numbers above 0")
            affine = np.diag([*sizes, 1.0])
            affine[:3, 3] = -sizes * (np.array(array.shape[:3]) // 2)
            affine = RAS_OF_LPS @ affine
        with placing(Path(path).parent) as folder:  # keeps both suffixes of .nii.gz
            write_nifti(
                folder / Path(path).name, array, affine, f"scoremri {what}; {RESEARCH_ONLY}"
            )

    def __repr__(self) -> str:
        """Summarise in one line."""
        info = self.info
        slices, ny, nx = self.mean.shape
        run = "no sampler"
        if info.samples:
            run = f"{counted(info.samples, 'sample')} by {info.sampler}, prior {info.prior}"
        count = sum(reason is not None for reason in info.fallback)
        fallback = f", {count} of them classical: {info.reason}" if count else ""
        return f"<Reconstruction of {slices} x {ny} x {nx}: {run}{fallback}>"

    def resized(
        self, shape: tuple[int, ...], fov_fraction: tuple[float, ...] = (1.0, 1.0)
    ) -> Reconstruction:
        """Crop the field of view, then interpolate to another matrix.

        Parameters
        ----------
        shape : tuple of int
            (y, x), or (z, y, x) for a volume.
        fov_fraction : tuple of float
            Field of view of the result over the present one, per axis of `shape`.

        Returns
        -------
        Reconstruction
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
            maps=resample(self.maps, shape, fov_fraction, axes) if axes[0] < 0 else self.maps,
            references={
                name: resample(image, shape, fov_fraction, axes)
                for name, image in self.references.items()
            },
            sampling=(),
        )


def predictive_variance(sd: ArrayLike, effective_samples: float) -> NDArray[np.float64]:
    """Compute the variance of a draw around the mean of E effective samples, sd^2 (1 + 1/E).

    Parameters
    ----------
    sd : array
        Standard deviation of the samples.
    effective_samples : float

    Returns
    -------
    float64 array
    """
    return (1 + 1 / effective_samples) * np.asarray(sd, np.float64) ** 2


def half_width(variance: ArrayLike, freedom: ArrayLike, level: float) -> NDArray[np.float64]:
    """Return half the width of the central interval by Student's t.

    Parameters
    ----------
    variance : array
        See `predictive_variance`.
    freedom : float or array
        Degrees of freedom.
    level : float
        Probability of the interval; a negative one gives the negative half width.

    Returns
    -------
    float64 array
    """
    from scipy.stats import t as student_t  # slow to import

    return np.asarray(student_t.ppf((1 + level) / 2, freedom) * np.sqrt(variance))


def standard_deviation(samples: NDArray[Any], effective_samples: float) -> NDArray[np.float32]:
    """Compute the standard deviation over the samples.

    See docs/methods.md, Eq. (19).

    Parameters
    ----------
    samples : array, (slice, sample, y, x)
    effective_samples : float
        See `Info`.

    Returns
    -------
    float32 array, (slice, y, x)
        NaN with fewer than two samples.
    """
    count = samples.shape[1]
    real = samples.real.dtype
    if count < 2:
        return np.full((samples.shape[0], *samples.shape[2:]), np.nan, real)
    # squares stay in the range of float32 for any unit
    unit = real.type(np.max(np.abs(samples), initial=0, where=np.isfinite(samples))) or 1
    return (samples / unit).std(1, ddof=count / effective_samples).astype(real) * unit
