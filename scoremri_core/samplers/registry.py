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
    """Draw samples and count the denoiser evaluations per sample; see `sample_posterior`."""

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
        """Draw samples, (frame, sample, set, y, x)."""


@dataclass(frozen=True)
class Sampler:
    """A sampler and its options.

    Attributes
    ----------
    options : type
        Dataclass of its options.
    draw : Draw
    estimates_noise : bool
        The residual of its samples estimates the noise of the data, so that resampling with more
        noise is worthwhile.
    prior : str
        Its default prior.
    """

    options: type[Any]
    draw: Draw
    estimates_noise: bool = False
    prior: str = DEFAULT

    def configured(self, steps: int | None, given: Mapping[str, Any]) -> Any:
        """Return the sampler's options.

        Parameters
        ----------
        steps : int or None
            None takes the sampler's.
        given : mapping
            Option names and values.

        Returns
        -------
        options object

        Raises
        ------
        InputError
            An unknown option, or fewer than one step.
        """
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
class SamplerChoice:
    """A sampler with its options.

    Attributes
    ----------
    name : str
        One of `SAMPLERS`; "none" draws no samples.
    sampler : Sampler
        The default sampler for "none".
    options : PosteriorOptions, LangevinOptions, HmcOptions or PulaOptions
    """

    name: str
    sampler: Sampler
    options: Any

    @property
    def draws_samples(self) -> bool:
        """Whether samples are drawn."""
        return self.name != NONE

    def prior_name(self, given: str) -> str:
        """Return the name of a prior.

        Parameters
        ----------
        given : str
            Name or path; "default" is the default prior of the sampler.

        Returns
        -------
        str
        """
        return self.sampler.prior if given == DEFAULT else given

    def prior(self, given: str | Denoiser) -> Denoiser | None:
        """Return the prior, loaded if given by name (see `prior_name`); None without samples.

        Parameters
        ----------
        given : str or Denoiser

        Returns
        -------
        Denoiser or None

        Raises
        ------
        InputError
            See `load_prior`.
        """
        if not self.draws_samples:
            return None
        return load_prior(self.prior_name(given)) if isinstance(given, str) else given

    def effective_samples(self, samples: int) -> float:
        """Return the number of independent samples whose mean has the same variance.

        Parameters
        ----------
        samples : int

        Returns
        -------
        float
        """
        return effective_samples(samples, getattr(self.options, "balanced", False))

    def factors(self, prior: Denoiser | None) -> tuple[float | None, float | None]:
        """Return variance scale and inflation, or None for samplers without them.

        Parameters
        ----------
        prior : Denoiser or None

        Returns
        -------
        variance_scale : float or None
        inflation : float or None
        """
        if not (self.draws_samples and hasattr(self.options, "factors")):
            return None, None
        scale, inflation = self.options.factors(prior)
        return scale, inflation


REGISTRY = {
    "posterior": Sampler(PosteriorOptions, sample_posterior, estimates_noise=True),
    "langevin": Sampler(LangevinOptions, sample_langevin, prior="ncsnv2"),
    "hmc": Sampler(HmcOptions, sample_hmc),
    "pula": Sampler(PulaOptions, sample_pula),
}


def find_sampler(sampler: Any, steps: int | None, given: Mapping[str, Any]) -> SamplerChoice:
    """Find a sampler by name or by its options.

    Parameters
    ----------
    sampler : str or PosteriorOptions, LangevinOptions, HmcOptions, PulaOptions
        One of `SAMPLERS`, or the options of a sampler.
    steps : int or None
        Overrides that of the options.
    given : mapping of str to value
        Options by name, which override those of the object.

    Returns
    -------
    SamplerChoice

    Raises
    ------
    InputError
        An unknown sampler or option, or fewer than one step.
    """
    for name, known in REGISTRY.items():
        if isinstance(sampler, known.options):
            options = {field.name: getattr(sampler, field.name) for field in fields(sampler)}
            default_steps = options.pop("steps")
            steps = default_steps if steps is None else steps
            return SamplerChoice(name, known, known.configured(steps, options | dict(given)))
    if sampler not in SAMPLERS:
        raise InputError(f"sampler {sampler!r}: expected one of {', '.join(SAMPLERS)}")
    # options are checked even if no samples are drawn
    known = REGISTRY["posterior" if sampler == NONE else sampler]
    return SamplerChoice(sampler, known, known.configured(steps, given))
