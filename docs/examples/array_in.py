"""Reconstruct a NumPy array of k-space: posterior mean, standard deviation and samples."""

import numpy as np

from scoremri_core import reconstruct
from scoremri_core.score.metrics import psnr
from scoremri_core.simulation.simulation import SimulatedScan


def main(samples=8, steps=11, size=128):
    """Undersample a simulated slice and reconstruct it."""
    scan = SimulatedScan(matrix=(size, size), coils=6)
    truth, coil_maps = scan.image[0], scan.coil_maps[0]  # (y, x) and (coil, y, x)

    # centred, orthonormal FFT, as `reconstruct` expects
    axes = (-2, -1)
    shifted = np.fft.ifftshift(coil_maps * truth, axes)
    kspace = np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), axes)

    sigma = 0.02 * np.percentile(np.abs(truth), 99)  # sd of each real component
    rng = np.random.default_rng(0)
    kspace += sigma * (rng.normal(size=kspace.shape) + 1j * rng.normal(size=kspace.shape))

    measured = np.zeros(size, bool)
    measured[::4] = True  # every fourth line
    measured[size // 2 - 12 : size // 2 + 12] = True  # and 24 calibration lines
    kspace *= measured[:, None]  # zero where not sampled

    result = reconstruct(kspace, samples=samples, steps=steps, device="cpu")

    shifted = np.fft.ifftshift(kspace, axes)
    aliased = np.fft.fftshift(np.fft.ifft2(shifted, norm="ortho"), axes)
    zero_filled = np.sum(coil_maps.conj() * aliased, axis=0)
    print(f"zero-filled    {psnr(zero_filled, truth):.1f} dB")
    print(f"posterior mean {psnr(result.mean[0], truth):.1f} dB")
    print(f"median sd      {np.median(result.std[0]):.3g}")
    return truth, zero_filled, result


if __name__ == "__main__":
    main()
