"""Intervals of the magnitude that hold on frames like those they were calibrated on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from scoremri_core.errors import InputError
from scoremri_core.kspace import KSpace
from scoremri_core.paths import replacing
from scoremri_core.priors.base import denoise
from scoremri_core.priors.model import ModelPrior
from scoremri_core.recon.result import Reconstruction, half_width, predictive_variance
from scoremri_core.score.conformal import LEVEL, REGIONS, regions_of
from scoremri_core.score.metrics import head_mask

FORMAT = "scoremri guarantee 1"
SIGMA = 0.1  # of the noise that the prior removes from a sample
# a frame may exceed the range of those seen by this factor
MARGINS = {"acceleration": 1.03, "largest_gap": 1.0, "misfit": 1.2, "denoising_error": 1.1}
TITLES = {
    "acceleration": "R with calibration lines",
    "largest_gap": "largest gap between measured lines",
    "misfit": "misfit",
    "denoising_error": "denoising error of the prior",
}


class UnlikeFrameError(InputError):
    """A frame is not like those of the guarantee."""


@dataclass(frozen=True)
class Conditions:
    """Properties of a frame that have to match those of the guarantee.

    Attributes
    ----------
    settings : dict
        Equal in all frames: matrix, coils, prior, sampler and its settings.
    measures : dict of str to float
        Within the range of the frames seen; the keys are those of MARGINS.
    """

    settings: dict[str, Any]
    measures: dict[str, float]

    @classmethod
    def of(cls, kspace: KSpace, result: Reconstruction, prior: ModelPrior) -> Conditions:
        """Measure a frame.

        Parameters
        ----------
        kspace : KSpace, (coil, y, x)
        result : Reconstruction
            Of one slice, with at least two samples.
        prior : ModelPrior

        Returns
        -------
        Conditions
        """
        info = result.info
        lines = np.flatnonzero(kspace.mask.any(axis=-1))
        return cls(
            {
                "matrix": list(kspace.mask.shape),
                "coils": kspace.coils,
                "prior": info.prior,
                "sha256": prior.card.get("sha256"),
                "sampler": info.sampler,
                "samples": info.samples,
                "steps": info.steps,
                "variance_scale": info.variance_scale,
                "inflation": info.inflation,
            },
            {
                "acceleration": kspace.acceleration,
                "largest_gap": float(np.diff(lines).max(initial=1)),
                "misfit": float(info.misfit[0]),
                "denoising_error": denoising_error(
                    np.asarray(result.samples)[0, 0], info.scale[0], prior
                ),
            },
        )


@dataclass(frozen=True)
class Guarantee:
    """Factors that stretch the intervals of samples until they hold on a site's frames.

    Attributes
    ----------
    factors : tuple of float
        By region of the object, see `scoremri_core.score.conformal.regions_of`.
    frames : int
        Fully sampled frames that the factors were learned from.
    protocol : dict
        Retrospective undersampling: mask, R, calibration lines and axis.
    settings : dict
        See `Conditions`.
    seen : dict of str to [float, float]
        Smallest and largest of each measure.
    left_out : dict
        Coverage and width on frames that were left out of the calibration.
    level : float
        Probability of the intervals.
    """

    factors: tuple[float, ...]
    frames: int
    protocol: dict[str, Any]
    settings: dict[str, Any]
    seen: dict[str, list[float]]
    left_out: dict[str, Any]
    level: float = LEVEL

    @property
    def description(self) -> str:
        """The protocol in words."""
        settings, protocol = self.settings, self.protocol
        matrix = " x ".join(map(str, settings["matrix"]))
        return (
            f"{self.level:.0%} intervals, calibrated on {self.frames} frames: {matrix}, "
            f"{settings['coils']} coils, {protocol['mask']}, R = {protocol['acceleration']:g}, "
            f"calibration {protocol['calibration']}, prior {settings['prior']}, "
            f"{settings['samples']} samples by {settings['sampler']}"
        )

    @classmethod
    def load(cls, path: str | Path) -> Guarantee:
        """Read a guarantee.

        Parameters
        ----------
        path : str or Path
            JSON of `scoremri guarantee`.

        Returns
        -------
        Guarantee

        Raises
        ------
        InputError
            No such file, or not a guarantee.
        """
        try:
            document = json.loads(Path(path).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"guarantee {path}: cannot be read: {error}") from error
        if not isinstance(document, Mapping) or document.get("format") != FORMAT:
            raise InputError(f"guarantee {path}: expected a file of `scoremri guarantee`")
        fields = {name: value for name, value in document.items() if name != "format"}
        try:
            found = cls(**{**fields, "factors": tuple(map(float, fields["factors"]))})
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"guarantee {path}: incomplete or damaged ({error})") from error
        if len(found.factors) != REGIONS or set(found.seen) != set(MARGINS):
            raise InputError(f"guarantee {path}: expected {REGIONS} factors and ranges of measures")
        return found

    def save(self, path: str | Path) -> None:
        """Write the guarantee as JSON, atomically.

        Parameters
        ----------
        path : str or Path
        """
        with replacing(path) as partial:
            partial.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")

    def difference(self, conditions: Conditions) -> str | None:
        """Describe why a frame is not like those of the guarantee.

        Parameters
        ----------
        conditions : Conditions
            Of the frame.

        Returns
        -------
        str or None
            None if it is.
        """
        for name, expected in self.settings.items():
            if conditions.settings.get(name) != expected:
                return f"{name} is {conditions.settings.get(name)}, calibrated for {expected}"
        for name, (low, high) in self.seen.items():
            value, margin = conditions.measures[name], MARGINS[name]
            if not low / margin <= value <= high * margin:
                return f"{TITLES[name]} is {value:.3g}, calibrated for {low:.3g} to {high:.3g}"
        return None

    def interval(
        self, result: Reconstruction, kspace: KSpace | ArrayLike, prior: ModelPrior
    ) -> NDArray[np.float32]:
        """Return the interval of the magnitude in each pixel of a slice.

        Parameters
        ----------
        result : Reconstruction
            Of one slice.
        kspace : KSpace or complex array, (coil, y, x)
            That `result` was made from.
        prior : ModelPrior
            That `result` was made with.

        Returns
        -------
        float32 array, (2, y, x)
            Lower and upper bound; zero outside of the object, where nothing is guaranteed.

        Raises
        ------
        UnlikeFrameError
            The frame is not like those of the guarantee.
        """
        measured = kspace if isinstance(kspace, KSpace) else KSpace.of(kspace)
        if measured.is_volume or len(result.mean) != 1:
            raise UnlikeFrameError("the guarantee is for single slices")
        if result.info.reason or result.info.samples < 2:
            raise UnlikeFrameError(result.info.reason or "fewer than two samples")
        if reason := self.difference(Conditions.of(measured, result, prior)):
            raise UnlikeFrameError(reason)
        magnitude, width = interval_of_samples(result, self.level)
        regions = regions_of(magnitude, width)
        stretched = np.array([0.0, *self.factors])[regions] * width
        bounds = np.stack([np.maximum(magnitude - stretched, 0), magnitude + stretched])
        return np.where(regions > 0, bounds, 0).astype(np.float32)


def interval_of_samples(
    result: Reconstruction, level: float = LEVEL
) -> tuple[NDArray[np.floating[Any]], NDArray[np.float64]]:
    """Return the centre and half the width of the interval of a slice's samples, docs Eq. (21).

    Parameters
    ----------
    result : Reconstruction
        Of one slice, with at least two samples.
    level : float, optional
        Probability of the interval.

    Returns
    -------
    magnitude : float array, (y, x)
    half_width : float array, (y, x)
    """
    magnitude, sd = (np.asarray(image)[0] for image in (result.magnitude, result.magnitude_std))
    variance = predictive_variance(sd, result.info.effective_samples)
    return magnitude, half_width(variance, result.info.samples - 1, level)


def denoising_error(sample: NDArray[Any], scale: float, prior: ModelPrior) -> float:
    """Return the error of the prior's denoiser on a sample with added noise.

    Differs between kinds of images; of real heads and legs the values overlap.

    Parameters
    ----------
    sample : complex array, (y, x)
    scale : float
        Image value that the prior sees as 1.
    prior : ModelPrior

    Returns
    -------
    float
        Root mean square over the object, relative to the noise of sd SIGMA.
    """
    clean = torch.as_tensor(np.asarray(sample, np.complex64) / np.float32(scale))[None]
    noise = torch.randn((2, *clean.shape), generator=torch.Generator().manual_seed(0))
    noisy = clean + SIGMA * torch.complex(noise[0], noise[1])
    change = denoise(prior, noisy.to(prior.device), SIGMA).cpu() - clean
    inside = torch.from_numpy(head_mask(sample))
    return float(change[0][inside].abs().square().mean().sqrt()) / (SIGMA * 2**0.5)
