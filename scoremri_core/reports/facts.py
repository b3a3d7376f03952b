"""What is known of one frame, and what it means in plain words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scoremri_core.recon.result import describe_inconsistent_lines

NAN = float("nan")
EXPLAINED = 1.25  # misfit up to which noise explains what is left
RAISED = 1.02  # noise used over thermal noise, from which it is called raised
NEAR = 0.005  # share of k-space that is none to speak of


@dataclass(frozen=True)
class Facts:
    """How an image came about; what is not known is NaN or empty.

    Attributes
    ----------
    sampler, samples, evaluations, prior, seed : see `scoremri_core.recon.result.Info`.
    sigma_thermal, sigma_n, misfit, inconsistent_lines, unacquired : the same.
    acceleration : samples of the whole matrix over those measured.
    fallback : why this is a classical image; empty where it was sampled.
    factor : of the pixels, over the units of the k-space.
    """

    sampler: str = ""
    samples: int = 0
    evaluations: int = 0
    prior: str = ""
    seed: str = ""
    sigma_thermal: float = NAN
    sigma_n: float = NAN
    misfit: float = NAN
    inconsistent_lines: float = NAN
    unacquired: float = NAN
    acceleration: float = NAN
    fallback: str = ""
    factor: float = 1.0

    @property
    def sampled(self) -> bool:
        """Whether there is a posterior."""
        return self.samples > 0 and not self.fallback

    @property
    def unit(self) -> str:
        """Of the pixels."""
        return "units of k-space" + ("" if self.factor == 1 else f" x {self.factor:.4g}")

    def in_words(self) -> dict[str, str]:
        """Sentences by what they are about."""
        return {
            "Acceleration": self._acceleration(),
            "Never acquired": self._unacquired(),
            "Noise": self._noise(),
            "Misfit": self._misfit(),
            "Sampling": self._sampling(),
        }

    def _acceleration(self) -> str:
        if not math.isfinite(self.acceleration):
            return "not known"
        return (
            f"{self.acceleration:.2f}: the whole matrix over the samples measured, "
            "calibration among them"
        )

    def _unacquired(self) -> str:
        if not math.isfinite(self.unacquired):
            return "not known"
        if self.unacquired < NEAR:
            return "none of k-space: there is a sample near every place of the matrix"
        return (
            f"{self.unacquired:.0%} of k-space has no sample near (as partial Fourier leaves "
            "it): what the image shows of it is the prior's"
        )

    def _noise(self) -> str:
        if not math.isfinite(self.sigma_thermal) or self.sigma_thermal <= 0:
            return "not known"
        thermal = f"thermal {self.sigma_thermal:.3g}"
        if not math.isfinite(self.sigma_n):
            return f"{thermal} (sd of each real component, units of k-space)"
        ratio = self.sigma_n / self.sigma_thermal
        why = ""
        if ratio > RAISED:
            why = f": raised {_more(ratio)}, to what the data show"
        return (
            f"thermal {self.sigma_thermal:.3g}, used {self.sigma_n:.3g} "
            f"(sd of each real component, units of k-space){why}"
        )

    def _misfit(self) -> str:
        if not math.isfinite(self.misfit):
            return "not known"
        if self.misfit <= EXPLAINED:
            return (
                f"{self.misfit:.2f}: the thermal noise explains what the samples leave of the data"
            )
        return (
            f"{self.misfit:.3g}: the samples leave more of the data than the thermal noise "
            "explains (1); coil maps, motion or a filtered k-space may be why, and the noise "
            "was allowed to be larger"
        )

    def _sampling(self) -> str:
        if not self.sampled:
            return "none: this is a classical reconstruction"
        return (
            f"{self.samples} samples by {self.sampler}, {self.evaluations} denoiser evaluations "
            f"each, seed {self.seed or 'not known'}"
        )

    def notice(self) -> str:
        """Warning of an image that is no posterior mean or of inconsistent data; else empty."""
        if self.sampled:
            sentence = describe_inconsistent_lines(self.inconsistent_lines)
            return f"{sentence[0].upper()}{sentence[1:]}." if sentence else ""
        why = f", because: {self.fallback}" if self.fallback else ", as the sampler 'none' asks"
        return (
            f"Not a posterior mean. A classical image (regularised SENSE, or root sum of squares) "
            f"is shown in its place{why}. Its uncertainty is not known."
        )


def _more(ratio: float) -> str:
    return f"by {ratio - 1:.0%}" if ratio < 2 else f"{ratio:.3g} times"
