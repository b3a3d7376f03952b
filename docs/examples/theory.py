"""Test theory of posterior sampling on closed-form examples, and draw theory.png."""

import sys

import numpy as np
import torch

from scoremri_core.samplers.hamiltonian import path_integral

SIGMA = 0.05  # measurement noise
ALPHAS = (0.5, 1e-2, 1e-4, 1e-8)


def variances(n):
    """Return the variances of a true and a wrong Gaussian, large in different halves, (2, n)."""
    true = np.where(np.arange(n) < n // 2, 1.0, 0.01)
    return np.stack([true, true[::-1]])


def experiment(n, m, alpha, trials=400, seed=0):
    """Sample the posterior of m random measurements, with prior mass alpha on the truth.

    The prior is alpha N(0, true) + (1 - alpha) N(0, wrong); given y = A x + SIGMA e with i.i.d.
    normal A, the posterior is a mixture of two Gaussians.

    Parameters
    ----------
    n, m : int
        Dimensions of x and y.
    alpha : float
        Prior mass on the true distribution.
    trials, seed : int, optional
        Number of independent trials, random seed.

    Returns
    -------
    mixed, right, wrong_only : array, (trials,)
        Errors |x - x'| of one posterior sample x' with that prior, the true and the wrong one.
    wrong : array, (trials,)
        Posterior mass of the wrong part.
    bound : array, (trials,)
        Bound of that mass, sqrt((1 - alpha) / alpha) times the Bhattacharyya coefficient of the
        two distributions of y.
    """
    rng = np.random.default_rng(seed)
    both = variances(n)
    a = rng.standard_normal((trials, m, n))
    x = np.sqrt(both[0]) * rng.standard_normal((trials, n))
    y = np.einsum("tmn,tn->tm", a, x) + SIGMA * rng.standard_normal((trials, m))
    samples, evidence, covariances = [], [], []
    for v in both:
        s = np.einsum("tmn,n,tkn->tmk", a, v, a) + SIGMA**2 * np.eye(m)
        covariances.append(s)
        solved = np.linalg.solve(s, y[..., None])[..., 0]
        evidence.append(-(np.sum(y * solved, 1) + np.linalg.slogdet(s)[1]) / 2)
        # exact sample: a sample of the prior plus a correction by its residual
        drawn = np.sqrt(v) * rng.standard_normal((trials, n))
        noise = SIGMA * rng.standard_normal((trials, m))
        residual = y - np.einsum("tmn,tn->tm", a, drawn) - noise
        gain = np.linalg.solve(s, residual[..., None])[..., 0]
        samples.append(drawn + v * np.einsum("tmn,tm->tn", a, gain))
    odds = np.log((1 - alpha) / alpha) if alpha < 1 else -np.inf
    wrong = 1 / (1 + np.exp(np.clip(evidence[0] - evidence[1] - odds, -700, 700)))
    taken = np.where((rng.random(trials) < wrong)[:, None], samples[1], samples[0])
    logs = [np.linalg.slogdet(s)[1] for s in (*covariances, sum(covariances) / 2)]
    overlap = np.exp((logs[0] + logs[1]) / 4 - logs[2] / 2)
    bound = np.minimum(1, np.exp(odds / 2) * overlap)
    errors = [np.linalg.norm(x - drawn, axis=1) for drawn in (taken, *samples)]
    return *errors, wrong, bound


def measurements_needed(n, alpha, mass=0.05, most=200):
    """Return the least m at which the mean bound of the wrong mass is at most `mass`."""
    for m in range(1, most):
        if experiment(n, m, alpha, trials=50)[4].mean() <= mass:
            return m
    raise ValueError(f"n {n}, alpha {alpha}: more than {most} measurements")


class TwoMoons:
    """Two half circles in the plane, as a mixture of Gaussians of sd 0.1.

    A point is an image of one complex pixel, (frame, sample, 1, 1, 1).
    """

    SD = 0.1

    def __init__(self):
        angle = torch.linspace(0, torch.pi, 60, dtype=torch.float64)
        upper = torch.polar(torch.ones_like(angle), angle)
        self.centres = torch.cat([upper, torch.complex(1 - upper.real, 0.5 - upper.imag)])

    def log_density(self, x):
        """Return the log density up to a constant, in the shape of x."""
        distance = (x[..., None] - self.centres).abs().square()
        return torch.logsumexp(-distance / (2 * self.SD**2), -1)

    def score(self, x):
        """Return the gradient of the log density."""
        offset = self.centres - x[..., None]
        share = torch.softmax(-offset.abs().square() / (2 * self.SD**2), -1)
        return (share * offset).sum(-1) / self.SD**2

    def sample(self, count, generator):
        """Return samples, (1, count, 1, 1, 1)."""
        kinds = torch.randint(len(self.centres), (count,), generator=generator)
        e = torch.randn(count, 2, dtype=torch.float64, generator=generator)
        return (self.centres[kinds] + self.SD * torch.view_as_complex(e)).view(1, -1, 1, 1, 1)


def simpson_errors(jump, count=2000, seed=0):
    """Return the errors of the path integral of the score for jumps in random directions."""
    moons, generator = TwoMoons(), torch.Generator().manual_seed(seed)
    start = moons.sample(count, generator)
    angle = 2 * torch.pi * torch.rand(start.shape, dtype=torch.float64, generator=generator)
    end = start + torch.polar(torch.full_like(angle, jump), angle)
    found = path_integral(moons.score, start, end, moons.score(start), moons.score(end))
    exact = (moons.log_density(end) - moons.log_density(start)).view(found.shape)
    return (found - exact).abs().flatten().numpy()


def main(path="theory.png", trials=400):
    """Draw the figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), dpi=110, layout="constrained")
    error, needed, moons = figure.subplots(1, 3)
    n, counts = 32, np.arange(2, 41, 2)
    for alpha in ALPHAS:
        runs = [experiment(n, m, alpha, trials) for m in counts]
        error.plot(counts, [np.median(run[0]) for run in runs], label=f"mass {alpha:g} right")
    error.plot(counts, [np.median(run[1]) for run in runs], "k--", label="right prior")
    error.plot(counts, [np.median(run[2]) for run in runs], "k:", label="wrong prior")
    error.set(xlabel="measurements", ylabel="median error of a sample", yscale="log")
    error.set_title(f"{n} dimensions", fontsize=10)
    error.legend(fontsize=8)
    for n in (16, 32, 64):
        least = [measurements_needed(n, alpha) for alpha in ALPHAS]
        needed.plot(-np.log10(ALPHAS), least, "o-", label=f"{n} dimensions")
    needed.set(xlabel=r"$\log_{10}(1/\alpha)$", ylabel="measurements for 5 % wrong mass")
    needed.legend(fontsize=8)
    jumps = np.geomspace(0.005, 1, 16)
    errors = [simpson_errors(jump, 5 * trials) for jump in jumps]
    for quantile, style in ((50, "-"), (95, "--"), (100, ":")):
        found = [np.percentile(e, quantile) for e in errors]
        moons.plot(jumps, found, f"C0{style}", label=f"{quantile} % of jumps")
    moons.set(xlabel="length of the jump", ylabel=r"error of $\Delta \log p$")
    moons.set(xscale="log", yscale="log")
    moons.set_title("two moons of width 0.1", fontsize=10)
    moons.legend(fontsize=8)
    FigureCanvasAgg(figure).print_png(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
