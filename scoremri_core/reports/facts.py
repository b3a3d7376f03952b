"""Parameters and quality of one frame, in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scoremri_core.recon.result import describe_inconsistent_lines
from scoremri_core.text import counted

NAN = float("nan")
MAX_MISFIT = 1.25  # that thermal noise explains
MIN_INFLATION = 1.02  # of the noise to be mentioned
MIN_UNSAMPLED = 0.005  # fraction of k-space to be mentioned


@dataclass(frozen=True)
class Facts:
    """Parameters and quality of a frame; unknown values are NaN or empty.

    Attributes
    ----------
    sampler, samples, evaluations, prior, seed
        See `scoremri_core.recon.result.Info`.
    sigma_thermal, sigma_n, misfit, inconsistent_lines, unsampled_fraction
        See `scoremri_core.recon.result.Info`.
    acceleration : float
        Samples of the full matrix over those acquired.
    fallback : str
        Reason for a classical image; empty if it was sampled.
    factor : float
        Scale factor of the pixels, relative to the units of the k-space.
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
    unsampled_fraction: float = NAN
    acceleration: float = NAN
    fallback: str = ""
    factor: float = 1.0

    @property
    def sampled(self) -> bool:
        """Whether there are posterior samples."""
        return self.samples > 0 and not self.fallback

    @property
    def unit(self) -> str:
        """Unit of the pixels."""
        return "units of k-space" + ("" if self.factor == 1 else f" x {self.factor:.4g}")

    def in_words(self) -> dict[str, str]:
        """Describe the frame, by topic.

        Returns
        -------
        dict of str
        """
        return {
            "Acceleration": self._acceleration(),
            "Unsampled": self._unsampled(),
            "Noise": self._noise(),
            "Misfit": self._misfit(),
            "Sampling": self._sampling(),
        }

    def _acceleration(self) -> str:
        if not math.isfinite(self.acceleration):
            return "unknown"
        return f"{self.acceleration:.2f}: samples of the full matrix over those acquired"

    def _unsampled(self) -> str:
        if not math.isfinite(self.unsampled_fraction):
            return "unknown"
        if self.unsampled_fraction < MIN_UNSAMPLED:
            return "none of k-space"
        return (
            f"{self.unsampled_fraction:.0%} of k-space is far from any sample (as in partial "
            "Fourier): its content is inferred by the prior"
        )

    def _noise(self) -> str:
        if not math.isfinite(self.sigma_thermal) or self.sigma_thermal <= 0:
            return "unknown"
        thermal = f"thermal {self.sigma_thermal:.3g}"
        if not math.isfinite(self.sigma_n):
            return f"{thermal} (sd of each real component, units of k-space)"
        ratio = self.sigma_n / self.sigma_thermal
        why = ""
        if ratio > MIN_INFLATION:
            why = f": raised {_more(ratio)} to match the data"
        return (
            f"thermal {self.sigma_thermal:.3g}, used {self.sigma_n:.3g} "
            f"(sd of each real component, units of k-space){why}"
        )

    def _misfit(self) -> str:
        if not math.isfinite(self.misfit):
            return "unknown"
        if self.misfit <= MAX_MISFIT:
            return f"{self.misfit:.2f}: the residual is explained by thermal noise"
        return (
            f"{self.misfit:.3g}: the residual exceeds thermal noise (1), possibly because of coil "
            "maps, motion or filtered k-space; the noise level was raised"
        )

    def _sampling(self) -> str:
        if not self.sampled:
            return "none (classical reconstruction)"
        return (
            f"{counted(self.samples, 'sample')} by {self.sampler}, "
            f"{counted(self.evaluations, 'denoiser evaluation')} each, "
            f"prior {self.prior or 'unknown'}, seed {self.seed or 'unknown'}"
        )

    def notice(self) -> str:
        """Warn of a classical image or of inconsistent data.

        Returns
        -------
        str
            Empty without either.
        """
        if self.sampled:
            sentence = describe_inconsistent_lines(self.inconsistent_lines)
            return f"{sentence[0].upper()}{sentence[1:]}." if sentence else ""
        reason = self.fallback or "sampler 'none'"
        return (
            "Not a posterior mean: classical image (regularised SENSE, or root sum of squares) "
            f"without uncertainty, because: {reason}."
        )


def _more(ratio: float) -> str:
    return f"by {ratio - 1:.0%}" if ratio < 2 else f"{ratio:.3g} times"
