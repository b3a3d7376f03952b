"""Samplers by name."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol

from torch import Tensor

from scoremri_core.errors import InputError
from scoremri_core.mri.sense import SenseOperator
from scoremri_core.priors.base import Denoiser
from scoremri_core.samplers.hmc import HmcOptions, sample_hmc
from scoremri_core.samplers.langevin import LangevinOptions, sample_langevin
from scoremri_core.samplers.noise import SampleNoise
from scoremri_core.samplers.posterior import PosteriorOptions, sample_posterior
from scoremri_core.samplers.pula import PulaOptions, sample_pula


class Draw(Protocol):
    """Draw samples (frame, sample, set, y, x) and count the evaluations per sample."""

    def __call__(
        self,
        operator: SenseOperator,
        data: Tensor,
        sigma_n: Tensor,
        prior: Denoiser,
        noise: SampleNoise,
        options: Any,
    ) -> tuple[Tensor, int]:
        """See `sample_posterior`."""


@dataclass(frozen=True)
class Sampler:
    """A sampler and the dataclass of its options."""

    options: type[Any]
    draw: Draw

    def configured(self, steps: int | None, given: dict[str, Any]) -> Any:
        """Options by name; InputError for an unknown one or no step."""
        known = [field.name for field in fields(self.options) if field.name != "steps"]
        for name in given:
            if name not in known:
                raise InputError(f"sampler option {name!r}: expected one of {', '.join(known)}")
        if steps is not None:
            if steps < 1:
                raise InputError(f"steps is {steps}: expected at least 1")
            given = {**given, "steps": steps}
        return self.options(**given)


REGISTRY = {
    "posterior": Sampler(PosteriorOptions, sample_posterior),
    "langevin": Sampler(LangevinOptions, sample_langevin),
    "hmc": Sampler(HmcOptions, sample_hmc),
    "pula": Sampler(PulaOptions, sample_pula),
}
