"""Draw docs/sampler.png: one sample on its way through the noise levels of the default sampler."""

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from scoremri_core import load_prior, reconstruct
from scoremri_core.mri.fourier import to_kspace
from scoremri_core.simulation.simulation import SimulatedScan

SIZE = 128
STEPS = 12
SHOWN = (1, 3, 5, 8, 12)
TEXT = "#808080"  # readable on white and on black


class Recorder:
    """A prior that keeps the first image of each evaluation, noisy and denoised."""

    def __init__(self, prior):
        self.prior = prior
        self.name = prior.name
        self.variance_scale, self.inflation = prior.variance_scale, prior.inflation
        self.error_spectrum, self.image_spectrum = prior.error_spectrum, prior.image_spectrum
        self.levels = []

    def denoise(self, x, sigma):
        """Return the denoised image, for a `Denoiser`."""
        return self.denoise_with_variance(x, sigma)[0]

    def denoise_with_variance(self, x, sigma):
        """Return the denoised image and its variance, and keep the former."""
        denoised, variance = self.prior.denoise_with_variance(x, sigma)
        if len(self.levels) < STEPS:
            self.levels.append([float(sigma[0]), x[0].numpy(), denoised[0].numpy()])
        return denoised, variance


def main(path="sampler.png"):
    """Reconstruct a simulated slice with one sample and draw five of its noise levels."""
    scan = SimulatedScan(matrix=(SIZE, SIZE), coils=6)
    truth = scan.image[0]
    sigma = 0.02 * np.percentile(np.abs(truth), 99)
    rng = np.random.default_rng(0)
    kspace = to_kspace(scan.coil_maps[0] * truth)
    kspace = kspace + sigma * (rng.normal(size=kspace.shape) + 1j * rng.normal(size=kspace.shape))
    lines = np.arange(SIZE)
    kspace = kspace * ((lines % 4 == 0) | (abs(lines - SIZE // 2) <= 8))[:, None]

    prior = Recorder(load_prior("default"))
    draws = []
    result = reconstruct(
        kspace,
        prior=prior,
        samples=1,
        steps=STEPS,
        balanced=False,
        device="cpu",
        callback=lambda level: draws.append(level.images()[0, 0]),
    )

    figure = Figure(figsize=(9, 5.6), dpi=110, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots(3, len(SHOWN))
    names = ("$x$: sample plus noise", "$D(x, \\sigma)$: denoised", "$x_0$: exact draw")
    for column, level in enumerate(SHOWN):
        sigma, noisy, denoised = prior.levels[level - 1]
        images = noisy, denoised, draws[level - 1] / result.info.scale[0]
        for row, image in enumerate(images):
            ax = axes[row, column]
            ax.imshow(np.abs(image), cmap="gray", vmin=0, vmax=1.1)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        axes[0, column].set_title(f"level {level}, $\\sigma$ = {sigma:.2g}", color=TEXT)
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(name, color=TEXT, fontsize=11)
    figure.savefig(path)
    Image.open(path).quantize(64, method=Image.Quantize.FASTOCTREE).save(path, optimize=True)


if __name__ == "__main__":
    main()
