"""Use a custom denoiser as a prior: any object with `denoise(x, sigma)`."""

import numpy as np
import torch

from scoremri_core import reconstruct
from scoremri_core.mri.fourier import to_image, to_kspace
from scoremri_core.score.metrics import psnr
from scoremri_core.simulation.simulation import SimulatedScan


class Smooth:
    """Wiener filter for images whose power decays with the third power of spatial frequency."""

    name = "smooth"  # for `Reconstruction.info.prior`

    def denoise(self, x, sigma):
        """Return E[x0 | x] for x = x0 + sigma e.

        Parameters
        ----------
        x : complex tensor, (batch, y, x)
            Noisy images, scaled to about 1.
        sigma : tensor, (batch,)
            Noise standard deviation of each real component.
        """
        y, x_ = (torch.linspace(-1, 1, n, device=x.device) for n in x.shape[-2:])
        power = 0.001 / (0.02 + torch.hypot(y[:, None], x_)) ** 3
        return to_image(to_kspace(x) * power / (power + sigma.view(-1, 1, 1) ** 2))


def main(samples=8, steps=11, size=128):
    """Undersample a simulated slice and reconstruct it with the prior above."""
    scan = SimulatedScan(matrix=(size, size), coils=6)
    truth, coil_maps = scan.image[0], scan.coil_maps[0]
    sigma = 0.02 * np.percentile(np.abs(truth), 99)
    rng = np.random.default_rng(0)
    kspace = to_kspace(coil_maps * truth)
    kspace = kspace + sigma * (rng.normal(size=kspace.shape) + 1j * rng.normal(size=kspace.shape))
    lines = np.arange(size)
    measured = (lines % 4 == 0) | (abs(lines - size // 2) <= 12)
    kspace = kspace * measured[:, None]

    result = reconstruct(kspace, prior=Smooth(), samples=samples, steps=steps, device="cpu")

    zero_filled = np.sum(coil_maps.conj() * to_image(kspace), axis=0)
    print(f"zero-filled       {psnr(zero_filled, truth):.1f} dB")
    print(f"prior '{result.info.prior}'    {psnr(result.mean[0], truth):.1f} dB")
    return truth, zero_filled, result


if __name__ == "__main__":
    main()
