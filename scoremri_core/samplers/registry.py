"""Samplers by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

from torch import Tensor

from scoremri_core.errors import InputError, similar
from scoremri_core.mri.sense import SenseOperator
from scoremri_core.priors import Denoiser, load_prior
from scoremri_core.priors.storage import DEFAULT
from scoremri_core.samplers import NONE, SAMPLERS
from scoremri_core.samplers.annealing import OnLevel, no_callback
from scoremri_core.samplers.hmc import HmcOptions, sample_hmc
from scoremri_core.samplers.langevin import LangevinOptions, sample_langevin
from scoremri_core.samplers.posterior import PosteriorOptions, sample_posterior
from scoremri_core.samplers.pula import PulaOptions, sample_pula
from scoremri_core.samplers.random_numbers import SampleNoise, effective_samples

Options = PosteriorOptions | LangevinOptions | HmcOptions | PulaOptions


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
        on_level: OnLevel = no_callback,
    ) -> tuple[Tensor, int]:
        """See `sample_posterior`."""


@dataclass(frozen=True)
class Sampler:
    """A sampler and the dataclass of its options.

    Attributes
    ----------
    options, draw : see `PosteriorOptions` and `Draw`.
    follows_noise : whether its samples tell the noise of the data, so that it is worth while to
        sample again with more of it.
    prior : the shipped prior that goes with it.
    """

    options: type[Any]
    draw: Draw
    follows_noise: bool = False
    prior: str = DEFAULT

    def configured(self, steps: int | None, given: Mapping[str, Any]) -> Any:
        """Options by name; InputError for an unknown one or no step."""
        known = [field.name for field in fields(self.options) if field.name != "steps"]
        for name in given:
            if name not in known:
                raise InputError(f"unknown sampler option {name!r}{similar(name, known)}")
        if steps is not None:
            if steps < 1:
                raise InputError(f"steps is {steps}: expected at least 1")
            given = {**given, "steps": steps}
        return self.options(**given)


@dataclass(frozen=True)
class Drawing:
    """A sampler as it was asked for.

    Attributes
    ----------
    name : of the sampler, or "none", which asks for no samples.
    sampler, options : of that name; with "none" the default's.
    """

    name: str
    sampler: Sampler
    options: Any

    @property
    def wanted(self) -> bool:
        """Whether any samples are."""
        return self.name != NONE

    def prior_name(self, given: str) -> str:
        """The name of a prior, of which "default" is the shipped one that goes with the sampler."""
        return self.sampler.prior if given == DEFAULT else given

    def prior(self, given: str | Denoiser) -> Denoiser | None:
        """The prior to draw with, by name (see `prior_name`) or as it is; None without samples.

        Raises
        ------
        InputError : as `load_prior`.
        """
        if not self.wanted:
            return None
        return load_prior(self.prior_name(given)) if isinstance(given, str) else given

    def effective_samples(self, samples: int) -> float:
        """See `scoremri_core.samplers.random_numbers.effective_samples`."""
        return effective_samples(samples, getattr(self.options, "balanced", False))

    def factors(self, prior: Denoiser | None) -> tuple[float | None, float | None]:
        """Variance scale and inflation; None with a sampler that has none."""
        if not (self.wanted and hasattr(self.options, "factors")):
            return None, None
        scale, inflation = self.options.factors(prior)
        return scale, inflation


REGISTRY = {
    "posterior": Sampler(PosteriorOptions, sample_posterior, follows_noise=True),
    "langevin": Sampler(LangevinOptions, sample_langevin, prior="ncsnv2"),
    "hmc": Sampler(HmcOptions, sample_hmc),
    "pula": Sampler(PulaOptions, sample_pula),
}


def find_sampler(sampler: Any, steps: int | None, given: Mapping[str, Any]) -> Drawing:
    """The sampler of a name, or of an object of its options.

    Parameters
    ----------
    sampler : one of `SAMPLERS`, or options such as `PosteriorOptions`, which name their sampler.
    steps, given : options by name, over those of the object.

    Raises
    ------
    InputError : an unknown sampler or option, or no step.
    """
    for name, own in REGISTRY.items():
        if isinstance(sampler, own.options):
            set_already = {field.name: getattr(sampler, field.name) for field in fields(sampler)}
            own_steps = set_already.pop("steps")
            wanted = own_steps if steps is None else steps
            return Drawing(name, own, own.configured(wanted, set_already | dict(given)))
    if sampler not in SAMPLERS:
        raise InputError(f"sampler {sampler!r}: expected one of {', '.join(SAMPLERS)}")
    # without samples the options are checked all the same
    own = REGISTRY["posterior" if sampler == NONE else sampler]
    return Drawing(sampler, own, own.configured(steps, given))
