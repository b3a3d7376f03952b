"""Every sampler against posteriors that are known, in closed form or by Gibbs sampling."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from scoremri_core.mri.fourier import to_image, to_kspace
from scoremri_core.mri.sense import SenseOperator
from scoremri_core.priors.gaussian import GaussianPrior
from scoremri_core.priors.mixture import GaussianMixturePrior
from scoremri_core.samplers.random_numbers import SampleNoise
from scoremri_core.samplers.registry import REGISTRY
from scoremri_core.simulation.masks import make_mask
from scoremri_core.studies.validate.agreement import scores, scores_against
from scoremri_core.studies.validate.closed_form import ClosedForm
from scoremri_core.studies.validate.increments import GibbsReference, Increments

COILS, ACCELERATION = 4, 4
PIXEL_VARIANCE = 0.1  # of each real component: the 99th percentile of magnitudes is about 1
EVIDENCE = 2.0
EXACT = "exact draws"
REFERENCE_DRAWS = 400  # by Gibbs sampling, of each truth

Prior = GaussianPrior | GaussianMixturePrior | Increments


class KnownPosterior(Protocol):
    """A posterior that is known, of one prior and one scan."""

    def draw(self, data: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Draws of the posterior given y (truth, coil, y, x), complex (truth, draw, pixel)."""

    def scores(self, samples: Tensor, truths: Tensor, data: Tensor) -> dict[str, float]:
        """What is wrong with samples (truth, sample, pixel)."""


@dataclass(frozen=True)
class ClosedFormCase:
    """A prior and a scan whose posterior is known.

    Attributes
    ----------
    name : of the case, for the table.
    side : pixels along each axis.
    sigma_n : sd of each real component of the noise.
    separation : None for a Gaussian; for a mixture of two, the distance of their posterior means
        over the posterior sd of each real component, along a direction of which the data say so
        little that they tell the two apart by EVIDENCE standard deviations alone.
    """

    name: str
    side: int
    sigma_n: float
    separation: float | None = None

    def problem(self) -> tuple[GaussianPrior | GaussianMixturePrior, SenseOperator]:
        """The prior, and the forward operator: 4 coils, R = 4 and a calibration region."""
        import sigpy.mri

        n = self.side
        maps = sigpy.mri.birdcage_maps((COILS, n, n))
        maps = (maps / np.sqrt((np.abs(maps) ** 2).sum(0))).astype(np.complex64)
        lines = make_mask("equispaced", (n,), ACCELERATION, n // 4).sampled
        mask = torch.from_numpy(lines)[None, :, None].expand(1, n, n)
        operator = SenseOperator(torch.from_numpy(maps)[None, None], mask)
        k = torch.arange(n) - n // 2
        spectrum = 1 / (1.0 + k[:, None] ** 2 + k**2)
        spectrum = PIXEL_VARIANCE * spectrum / spectrum.mean()
        prior = GaussianPrior(spectrum)
        if self.separation is None:
            return prior, operator

        def filtered(x: Tensor, gain: Tensor) -> Tensor:
            return to_image(gain * to_kspace(x.view(-1, n, n)))

        # In images whitened by the prior, of covariance S, the posterior's is S^-1/2 C S^-1/2: an
        # eigenvalue of 1 is a direction that the data say nothing of.  Means apart by S^1/2 v
        # stay apart in the posterior by that times the eigenvalue of v.
        covariance = ClosedForm(prior, operator, self.sigma_n).covariances[0]
        half = filtered(covariance.mT, spectrum.rsqrt()).flatten(1).mT
        whitened = filtered(half.conj(), spectrum.rsqrt()).flatten(1).conj()
        values, vectors = torch.linalg.eigh((whitened + whitened.mH) / 2)
        # the data tell the components apart by sqrt(1 / value - 1) of that distance
        wanted = 1 / (1 + (EVIDENCE / self.separation) ** 2)
        value, v = min(zip(values, vectors.mT, strict=True), key=lambda p: abs(p[0] - wanted))
        apart = self.separation / value.sqrt() * filtered(v, spectrum.sqrt())[0]
        means = torch.stack([-apart / 2, apart / 2]).to(torch.complex64)
        return GaussianMixturePrior(
            torch.tensor([0.3, 0.7]), means, spectrum.expand(2, n, n)
        ), operator

    def known(self, prior: Any, operator: SenseOperator) -> KnownPosterior:
        """The posterior of that prior and operator."""
        return _ClosedForm(ClosedForm(prior, operator, self.sigma_n), self.side)


@dataclass(frozen=True)
class SparseCase:
    """A signal of sparse increments and part of its spectrum: one coil, one column.

    Attributes
    ----------
    name : of the case, for the table.
    kind, length : of the signal, see `Increments`.
    sigma_n : sd of each real component of the noise.
    """

    name: str
    kind: str
    length: int
    sigma_n: float

    def problem(self) -> tuple[Increments, SenseOperator]:
        """The prior, and the forward operator: half of the spectrum, its centre included."""
        sampled = make_mask("random", (self.length,), 2, self.length // 8, seed=0).sampled
        mask = torch.from_numpy(sampled)[None, :, None]
        maps = torch.ones(1, 1, 1, self.length, 1, dtype=torch.complex64)
        return Increments(self.kind, self.length), SenseOperator(maps, mask)

    def known(self, prior: Any, operator: SenseOperator) -> KnownPosterior:
        """The posterior of that prior and operator."""
        return _ByGibbs(prior, operator, self.sigma_n)


@dataclass(frozen=True)
class _ClosedForm:
    closed: ClosedForm
    side: int

    def draw(self, data: Tensor, count: int, generator: torch.Generator) -> Tensor:
        return self.closed.given(data).sample(count, generator)

    def scores(self, samples: Tensor, truths: Tensor, data: Tensor) -> dict[str, float]:
        return scores(samples, truths, data, self.closed, (self.side, self.side))


class _ByGibbs:
    def __init__(self, prior: Increments, operator: SenseOperator, sigma_n: float) -> None:
        self.gibbs = GibbsReference(prior, operator, sigma_n)
        self.whitened = SenseOperator(operator.maps / sigma_n, operator.mask[:, 0, 0])
        self.sigma_n = sigma_n
        self._references: list[Tensor] = []  # of one truth after another

    def draw(self, data: Tensor, count: int, generator: torch.Generator) -> Tensor:
        return torch.stack([self.gibbs.sample(y, count, generator) for y in data])

    def scores(self, samples: Tensor, truths: Tensor, data: Tensor) -> dict[str, float]:
        generator = torch.Generator().manual_seed(1)
        for y in data[len(self._references) :]:
            self._references.append(self.gibbs.sample(y, REFERENCE_DRAWS, generator))
        reference = torch.stack(self._references[: len(data)])
        return scores_against(samples, truths, data / self.sigma_n, reference, self.whitened)


@dataclass(frozen=True)
class Run:
    """A sampler with options, and how many truths and samples it is measured with."""

    sampler: str
    steps: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    truths: int = 4
    samples: int = 39
    note: str = ""


# the scores take samples for independent
INDEPENDENT = {"balanced": False}

# More evaluations, fewer images: the table is to end within minutes on two cores.
RUNS = (
    Run("posterior", 5, INDEPENDENT, truths=8, samples=79),
    Run("posterior", 10, INDEPENDENT, truths=8, samples=79),
    Run("posterior", 20, INDEPENDENT, truths=8, samples=79),
    Run("posterior", 50, INDEPENDENT, truths=4, samples=79),
    Run("posterior", 100, INDEPENDENT, truths=4),
    Run("pula", 10, truths=8),
    Run("pula", 50),
    Run("langevin", 20),
    Run("langevin", 100),
    Run("langevin", 500),
    Run("langevin", 2000, truths=2),
    Run("langevin", None, {"update": "published"}, 1, note="published"),
    Run("langevin", None, {"update": "published", "step_lr": 9e-7}, 2, note="published, lr 9e-7"),
)
CASES = (
    ClosedFormCase("Gaussian, noise 0.02", 32, 0.02),
    ClosedFormCase("Gaussian, noise 0.1", 32, 0.1),
    ClosedFormCase("mixture, modes 3 sd apart", 16, 0.05, 3.0),
    ClosedFormCase("mixture, modes 8 sd apart", 16, 0.05, 8.0),
)
SPARSE_CASES = tuple(
    SparseCase(f"partial Fourier, {kind} increments", kind, 16, 0.05)
    for kind in ("gaussian", "laplace", "bernoulli-laplace", "student")
)
# an evaluation of their denoiser takes long
SPARSE_RUNS = (
    Run("posterior", 10, INDEPENDENT, truths=8, samples=79),
    Run("posterior", 50, INDEPENDENT, truths=2, samples=79),
    Run("pula", 50, truths=2),
    Run("langevin", 100, truths=2),
    Run("hmc", truths=1),
)
QUICK_CASES = (
    ClosedFormCase("Gaussian, noise 0.1", 12, 0.1),
    ClosedFormCase("mixture, modes 3 sd apart", 8, 0.1, 3.0),
)
QUICK_RUNS = (Run("posterior", 10, INDEPENDENT), Run("pula", 5), Run("langevin", 10), Run("hmc", 3))
QUICK_SPARSE = (SparseCase("partial Fourier, laplace increments", "laplace", 8, 0.1),)
QUICK_SPARSE_RUNS = (
    Run("posterior", 10, INDEPENDENT),
    Run("pula", 5, truths=1),
    Run("langevin", 10, truths=1),
    Run("hmc", 2, {"tuning": 2, "leapfrog": 2}, truths=1),
)


def table(quick: bool = False) -> list[tuple[ClosedFormCase | SparseCase, list[Run]]]:
    """Cases and their lines: a sampler that has none of its own is run with its defaults."""
    cases: tuple[ClosedFormCase | SparseCase, ...] = QUICK_CASES if quick else CASES
    sparse = QUICK_SPARSE if quick else SPARSE_CASES
    lines = QUICK_RUNS if quick else RUNS
    return [(case, _complete(lines)) for case in cases] + [
        (case, _complete(QUICK_SPARSE_RUNS if quick else SPARSE_RUNS)) for case in sparse
    ]


def _complete(chosen: Sequence[Run]) -> list[Run]:
    listed = {run.sampler for run in chosen}
    return [*chosen, *(Run(name) for name in REGISTRY if name not in listed)]


def work(quick: bool = False) -> int:
    """What `validate` counts its progress to: one for each truth of each line of each case."""
    return sum(run.truths for _, lines in table(quick) for run in lines)


def validate(
    quick: bool = False,
    seed: int = 0,
    device: str = "cpu",
    before: Callable[[int, str], None] = lambda done, note: None,
) -> list[dict[str, Any]]:
    """Score every sampler on every case; exact draws come first, as what a table is read against.

    Parameters
    ----------
    quick : small problems and few runs, for a test that all of it works.
    seed : of the truths, of their noise and of the samplers.
    device : where the samplers run.
    before : called with the work done, of `work`, and what comes next.

    Returns
    -------
    One dictionary a line: case, sampler, steps, options, note, evaluations, truths, samples,
    seconds, and the scores of `scoremri_core.studies.validate.agreement.scores`, or of
    `scores_against` where the posterior is that of a Gibbs sampler (absent where samples are not
    finite).
    """
    done, rows = 0, []
    for case, lines in table(quick):
        truths_most = max(run.truths for run in lines)
        prior, operator = case.problem()
        known = case.known(prior, operator)
        generator = torch.Generator().manual_seed(seed)
        truths = prior.sample(truths_most, generator).to(torch.complex64)
        clean = operator.forward(truths[None, :, None])[0]
        e = torch.randn(*clean.shape, 2, generator=generator)
        data = clean + case.sigma_n * operator.mask[0, 0] * torch.view_as_complex(e)

        before(done, f"{case.name}, {EXACT}")
        exact = Run(EXACT, truths=truths_most, samples=79)
        start = time.perf_counter()
        drawn = known.draw(data, exact.samples, generator)
        seconds = time.perf_counter() - start
        rows.append(_row(case, exact, drawn, truths, data, known, 0, seconds))
        for run in lines:
            note = f"{case.name}, {run.sampler} {run.steps or ''}"
            found, evaluations, seconds = [], 0, 0.0
            for truth in range(run.truths):
                before(done, note)
                start = time.perf_counter()
                images, evaluations = _draw(
                    run, operator, data[truth], case.sigma_n, prior, seed + truth, device
                )
                seconds += time.perf_counter() - start
                found.append(images)
                done += 1
            drawn = torch.stack(found)
            rows.append(_row(case, run, drawn, truths, data, known, evaluations, seconds))
    return rows


def _row(
    case: ClosedFormCase | SparseCase,
    run: Run,
    samples: Tensor,
    truths: Tensor,
    data: Tensor,
    known: KnownPosterior,
    evaluations: int,
    seconds: float,
) -> dict[str, Any]:
    """One line of the table."""
    count = len(samples)
    found = {}
    if bool(samples.isfinite().all()):
        found = known.scores(samples, truths[:count].flatten(1), data[:count])
    return {
        "case": case.name,
        "sampler": run.sampler,
        "evaluations": evaluations,
        "steps": run.steps,
        "options": run.options,
        "note": run.note if found else f"{run.note} diverged".strip(),
        "truths": count,
        "samples": run.samples,
        "seconds": seconds,
        **found,
    }


@torch.no_grad()
def _draw(
    run: Run,
    operator: SenseOperator,
    data: Tensor,
    sigma_n: float,
    prior: Prior,
    seed: int,
    device: str,
) -> tuple[Tensor, int]:
    """Samples (sample, pixel) given the data of one truth, and the evaluations of each."""
    sampler = REGISTRY[run.sampler]
    where = torch.device(device)
    images, evaluations = sampler.draw(
        SenseOperator(operator.maps.to(where), operator.mask[:, 0, 0].to(where)),
        data[None].to(where),
        torch.tensor([sigma_n], device=where),
        prior,
        SampleNoise(seed, run.samples, where),
        sampler.configured(run.steps, run.options),
    )
    return images[0, :, 0].flatten(1).cpu(), evaluations
