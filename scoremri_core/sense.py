"""The forward operator of a multi-coil Cartesian scan."""

from __future__ import annotations

import torch
from torch import Tensor

from scoremri_core.fourier import to_image, to_kspace


class SenseOperator:
    """A = P F S: coil maps, centred orthonormal FFT, sampling mask (Pruessmann et al. 2001).

    Frames and samples are batch dimensions: every frame has maps and a mask of its own, and all
    its samples share them.

    Parameters
    ----------
    maps : complex (frame, set, coil, y, x)
    mask : bool (frame, y, x), true where k-space was measured.

    Notes
    -----
    Images are (frame, sample, set, y, x), k-space is (frame, sample, coil, y, x).
    """

    def __init__(self, maps: Tensor, mask: Tensor) -> None:
        self.maps = maps[:, None]  # (frame, 1, set, coil, y, x)
        self.mask = mask[:, None, None]  # (frame, 1, 1, y, x)
        # A^H A commutes with shifts of the image, so its FFTs need no centring; and where whole
        # readouts are measured the transform along them cancels
        self._lines = bool((mask == mask[..., :1]).all())
        self._normal_mask = torch.fft.ifftshift(self.mask, dim=(-2, -1))
        self.support = self.maps.abs().amax(3) > 0  # (frame, 1, set, y, x)
        self._single = self.maps[:, :, 0] if maps.shape[1] == 1 else None

    def forward(self, image: Tensor) -> Tensor:
        """A x: (frame, sample, set, y, x) to (frame, sample, coil, y, x)."""
        return to_kspace(self._expand(image)) * self.mask

    def adjoint(self, kspace: Tensor) -> Tensor:
        """A^H y: (frame, sample, coil, y, x) to (frame, sample, set, y, x)."""
        return self._combine(to_image(kspace * self.mask))

    def normal(self, image: Tensor) -> Tensor:
        """A^H A x, with fewer and shorter transforms than `forward` and `adjoint`."""
        coils = self._expand(image)
        if self._lines:
            kspace = torch.fft.fft(coils, dim=-2, norm="ortho") * self._normal_mask[..., :1]
            return self._combine(torch.fft.ifft(kspace, dim=-2, norm="ortho"))
        kspace = torch.fft.fft2(coils, norm="ortho") * self._normal_mask
        return self._combine(torch.fft.ifft2(kspace, norm="ortho"))

    def diagonal(self) -> Tensor:
        """The diagonal of A^H A, (frame, 1, set, y, x), real: sampled fraction x sum |S|^2."""
        fraction = self.mask.float().mean((-2, -1), keepdim=True)
        return self.maps.abs().square().sum(3) * fraction

    def _expand(self, image: Tensor) -> Tensor:
        if self._single is not None:
            return image * self._single
        return (image[:, :, :, None] * self.maps).sum(2)

    def _combine(self, coils: Tensor) -> Tensor:
        if self._single is not None:
            return (coils * self._single.conj()).sum(2, keepdim=True)
        return (coils[:, :, None] * self.maps.conj()).sum(3)
