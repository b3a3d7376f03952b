"""The forward operator of a multi-coil Cartesian scan."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from scoremri_core.fourier import fft, to_image, to_kspace


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
        self.maps = maps
        self._conjugate = maps.conj().resolve_conj()
        self.mask = mask[:, None, None]  # (frame, 1, 1, y, x)
        # A^H A commutes with shifts of the image, so its FFTs need no centring; and where whole
        # readouts are measured the transform along them cancels
        self._lines = bool((mask == mask[..., :1]).all())
        normal_mask = self.mask[..., :1] if self._lines else self.mask
        self._normal_mask = torch.fft.ifftshift(normal_mask, dim=(-2, -1))
        self.support = maps.abs().amax(2)[:, None] > 0  # (frame, 1, set, y, x)

    def forward(self, image: Tensor) -> Tensor:
        """A x: (frame, sample, set, y, x) to (frame, sample, coil, y, x)."""
        return to_kspace(self._expand(image)) * self.mask

    def adjoint(self, kspace: Tensor) -> Tensor:
        """A^H y: (frame, sample, coil, y, x) to (frame, sample, set, y, x)."""
        return self._combine(to_image(kspace * self.mask))

    def normal(self, image: Tensor) -> Tensor:
        """A^H A x, with fewer and shorter transforms than `forward` and `adjoint`."""
        axes = (-2,) if self._lines else (-2, -1)
        kspace = fft(self._expand(image), axes)
        kspace *= self._normal_mask
        return self._combine(fft(kspace, axes, inverse=True))

    @cached_property
    def diagonal(self) -> Tensor:
        """The diagonal of A^H A, (frame, 1, set, y, x), real: sampled fraction x sum |S|^2."""
        fraction = self.mask.float().mean((-2, -1), keepdim=True)
        return self.maps.abs().square().sum(2)[:, None] * fraction

    @cached_property
    def kspace_diagonal(self) -> Tensor:
        """The diagonal of F A^H A F^H, (frame, 1, set, y, x), real, DC at index 0.

        The sampling density as seen through the coils: the mask correlated with the power
        spectrum of the maps.
        """
        power = torch.fft.fft2(self.maps, norm="ortho").abs().square().sum(2)
        density = torch.fft.ifft2(
            torch.fft.fft2(torch.fft.ifftshift(self.mask[:, :, 0].float(), dim=(-2, -1)))
            * torch.fft.fft2(power).conj()
        )
        return density.real[:, None] / power[0, 0].numel()

    # Sums run coil by coil, in one order, so that a sample is the same to the last bit alone and
    # in company; matrix products would round by the size of the batch.
    def _expand(self, image: Tensor) -> Tensor:
        coils = image[:, :, 0, None] * self.maps[:, None, 0]
        for i in range(1, self.maps.shape[1]):
            coils.addcmul_(image[:, :, i, None], self.maps[:, None, i])
        return coils

    def _combine(self, coils: Tensor) -> Tensor:
        image = coils[:, :, 0, None] * self._conjugate[:, None, :, 0]
        for c in range(1, self.maps.shape[2]):
            image.addcmul_(coils[:, :, c, None], self._conjugate[:, None, :, c])
        return image
