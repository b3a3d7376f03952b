"""The forward operator of a multi-coil Cartesian scan."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from scoremri_core.mri.arithmetic import real_pairs, scale_complex_, y_contiguous
from scoremri_core.mri.fourier import fft, to_image, to_kspace

CACHED_VALUES = 2**17  # complex ones of the images that a CPU works on at a time


class SenseOperator:
    """A = P F S: coil maps, centred orthonormal FFT, sampling mask (Pruessmann et al. 2001).

    Frames and samples are batch dimensions: every frame has maps and a mask of its own, and all
    its samples share them.

    Parameters
    ----------
    maps : complex (frame, set, coil, y, x)
    mask : bool (frame, y, x), true where k-space was measured.
    weight : real (frame, y, x), how much more often a sample was averaged than the usual one; None
        is the same for all.  The operator is then w^(1/2) P F S, and the data it is held against
        are w^(1/2) y, whose noise is the same in every sample.

    Notes
    -----
    Images are (frame, sample, set, y, x), k-space is (frame, sample, coil, y, x).
    """

    def __init__(self, maps: Tensor, mask: Tensor, weight: Tensor | None = None) -> None:
        self.maps = y_contiguous(maps)
        self._conjugate = self.maps.conj().resolve_conj()
        self.mask = mask[:, None, None]  # (frame, 1, 1, y, x)
        self.weight = weight
        gain = mask if weight is None else mask * weight.sqrt()
        self._gain = gain[:, None, None]
        # A^H A commutes with shifts of the image, so its FFTs need no centring; and where whole
        # readouts are measured alike the transform along them cancels
        lines = bool((gain == gain[..., :1]).all())
        self._axes = (-2,) if lines else (-2, -1)
        reduced_mask, reduced_gain = (
            torch.fft.ifftshift(each[..., :1] if lines else each, dim=(-2, -1))
            for each in (self.mask, self._gain)
        )
        self._reduced_mask = reduced_mask
        # what `normal` and `adjoint_residual` scale_complex samples by, laid out as `reduced` k-space
        self.precision = self._given_precision = reduced_gain.to(maps.real.dtype).square()
        self._weights = real_pairs(self.precision)
        self.support = y_contiguous(self.maps.abs().amax(2))[:, None] > 0  # (frame, 1, set, y, x)

    @cached_property
    def rows(self) -> list[Tensor]:
        """Rows of `reduced` k-space that hold something measured, of each frame.

        Behind them, in a frame that has fewer than another, come some that hold nothing.
        """
        measured = self._reduced_mask[:, 0, 0].any(-1)
        # not `nonzero`, at which the host would wait for each frame
        first = measured.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
        return list(first[:, : int(measured.sum(-1).max())])

    def forward(self, image: Tensor) -> Tensor:
        """A x: (frame, sample, set, y, x) to (frame, sample, coil, y, x)."""
        return to_kspace(_expand(image, self.maps)) * self._gain

    def adjoint(self, kspace: Tensor) -> Tensor:
        """A^H y: (frame, sample, coil, y, x) to (frame, sample, set, y, x)."""
        coils = to_image(kspace * self._gain)
        frames, samples, _, ny, nx = coils.shape
        image = coils.new_zeros(frames, samples, self.maps.shape[1], ny, nx)
        return _combine(coils, self._conjugate, image)

    def weighted(self, precision: Tensor) -> SenseOperator:
        """The same operator for noise of the variance 1 / precision in each real component.

        `normal`, `adjoint_residual` and the diagonals then hold A^H W A and A^H W, W the precision, which takes
        the place of the samples' weight.

        Parameters
        ----------
        precision : (frame, sample or 1, 1, y, x), or (.., y, 1) where whole readouts are measured,
            DC at index 0; what was not measured counts as zero.
        """
        _ = self._alike  # once for all weights
        other = copy.copy(self)
        other.__dict__.pop("diagonal", None)
        other.precision = self._reduced_mask * precision
        other._weights = real_pairs(other.precision)
        return other

    def reduced(self, kspace: Tensor) -> Tensor:
        """k-space (frame, coil, y, x) as `adjoint_residual` takes it: y itself, after a unitary transform."""
        if self.weight is not None:
            kspace = kspace / torch.where(self.mask, self._gain, 1)[:, 0]
        return y_contiguous(fft(to_image(kspace * self.mask[:, 0]), self._axes))

    def on_rows(self, values: Tensor) -> Tensor:
        """Values (frame or 1, sample, coil, x, row) in `reduced` k-space: on its `rows`, else zero.

        A frame with fewer rows than there are values takes the first.
        """
        _, samples, coils, nx, _ = values.shape
        ny = self.maps.shape[-2]
        k = values.new_zeros(len(self.rows), samples, coils, nx, ny)
        for own, rows, given in zip(
            k, self.rows, values.expand(len(k), -1, -1, -1, -1), strict=True
        ):
            own.index_copy_(-1, rows, given[..., : len(rows)])
        return k.mT

    def adjoint_residual(
        self, reduced: Tensor, image: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """A^H W (y + W^(-1/2) e - A x).

        Parameters
        ----------
        reduced : y as `reduced` gives it, with an axis of samples, (frame, sample or 1, ...).
        image : x, (frame, sample, set, y, x).
        noise : e on the measured rows, as `on_rows` takes it; None leaves it out.
        """
        return self._round_trip(image, reduced, noise)

    def normal(self, image: Tensor) -> Tensor:
        """A^H W A x, with fewer and shorter transforms than `forward` and `adjoint`."""
        return self._round_trip(image)

    def _round_trip(
        self, image: Tensor, reduced: Tensor | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """A^H W A x, or A^H W (y + W^(-1/2) e - A x)."""
        image = y_contiguous(image)
        total = torch.zeros_like(image)
        root = self._weights if noise is None else self._weights.sqrt()
        for samples, coils in self._parts(image):
            kspace = fft(_expand(image[:, samples], self.maps[:, :, coils]), self._axes)
            if reduced is not None:
                torch.sub(_of(reduced, samples)[:, :, coils], kspace, out=kspace)
            scale_complex_(kspace, _of(self._weights, samples))
            if noise is not None:
                # never for all coils at once, which would be the most memory of all that is done
                own = self.on_rows(noise[:, samples, coils])
                kspace.add_(scale_complex_(own, _of(root, samples)))
            seen = fft(kspace, self._axes, inverse=True)
            _combine(seen, self._conjugate[:, :, coils], total[:, samples])
        return total

    def residual_power(self, reduced: Tensor, image: Tensor) -> Tensor:
        """w |y - P F S x|^2 summed over the coils, and the readout where whole ones are measured.

        Returns
        -------
        (frame, sample, y, x) or (frame, sample, y, 1), DC at index 0, zero where not measured.
        """
        image = y_contiguous(image)
        power = torch.view_as_real(torch.zeros_like(image[:, :, 0]))
        for samples, coils in self._parts(image):
            kspace = fft(_expand(image[:, samples], self.maps[:, :, coils]), self._axes)
            rest = torch.sub(_of(reduced, samples)[:, :, coils], kspace, out=kspace)
            # not by `sum`, which is slow where there is one coil
            for square in torch.view_as_real(rest).square_().unbind(2):
                power[:, samples] += square
        total = power.sum((-2, -1), keepdim=True) if len(self._axes) == 1 else power.sum(-1)
        return (
            total.view(*image.shape[:2], -1, self.precision.shape[-1])
            * self._given_precision[:, :, 0]
        )

    def _parts(self, image: Tensor) -> Iterator[tuple[slice, slice]]:
        """Slices of samples and of coils, to be computed together."""
        # on a CPU coil by coil, for the same reason
        coils = self.maps.shape[2]
        width = 1 if image.device.type == "cpu" else coils
        for samples in chunks(image):
            for c in range(0, coils, width):
                yield samples, slice(c, c + width)

    @cached_property
    def diagonal(self) -> Tensor:
        """The diagonal of A^H W A, (frame, 1, set, y, x), real: mean of W x sum |S|^2."""
        return self.maps.abs().square().sum(2)[:, None] * self.precision.mean(
            (-2, -1), keepdim=True
        )

    def kspace_diagonal(self, weights: Tensor) -> Tensor:
        """The diagonal of F w A^H W A w F^H, DC at index 0, for real weights w on the image.

        The sampling density as seen through the coils and the weights: the mask correlated with
        the power spectrum of weights x maps.  How alike the coils see two places is taken to
        depend on the distance of the places alone, which is exact for constant weights.

        Parameters
        ----------
        weights : (frame, sample, set, y, x).

        Returns
        -------
        Real, of the shape of the weights.
        """
        lags = fft(self.precision.to(self.maps.dtype), self._axes, inverse=True)
        found = fft(lags * self._alike * self._autocorrelation(weights), self._axes)
        return found.real.clamp(min=0).expand(weights.shape)

    @cached_property
    def _alike(self) -> Tensor:
        """How alike the coils see two places: autocorrelation of maps over that of the support."""
        seen = self._autocorrelation(self.support.to(self.maps.real.dtype)).real
        alike = self._autocorrelation(self.maps).sum(2)[:, None].conj()
        pixels = self.maps[0, 0, 0].numel()
        return torch.where(seen > 0.02 * seen[..., :1, :1], alike / seen, 0) / pixels

    def _autocorrelation(self, x: Tensor) -> Tensor:
        """At lags (..., y, x), or (.., y, 1) where the transform along x cancels."""
        spectrum = torch.view_as_real(torch.fft.fftn(x, dim=self._axes)).square().sum(-1)
        if len(self._axes) == 1:
            spectrum = spectrum.sum(-1, keepdim=True)
        return torch.fft.ifftn(spectrum, dim=self._axes)


def chunks(image: Tensor) -> list[slice]:
    """Slices of the samples of (frame, sample, ...) to be computed together.

    On a CPU few: what fits its caches, and memory that is not given back to the system in between,
    is several times faster.
    """
    every = image.shape[1]
    few = image.device.type == "cpu"
    step = max(1, CACHED_VALUES // image[:, 0].numel()) if few else every
    return [slice(s, min(s + step, every)) for s in range(0, every, step)]


def _of(each: Tensor, samples: slice) -> Tensor:
    """Those of (frame, sample, ...), or the one that all samples have in common."""
    return each if each.shape[1] == 1 else each[:, samples]


# Sums run coil by coil, in one order, so that a sample is the same to the last bit alone and in
# company; matrix products would round by the size of the batch.
def _expand(image: Tensor, maps: Tensor) -> Tensor:
    coils = image[:, :, 0, None] * maps[:, None, 0]
    for i in range(1, maps.shape[1]):
        coils.addcmul_(image[:, :, i, None], maps[:, None, i])
    return coils


def _combine(coils: Tensor, conjugate: Tensor, total: Tensor) -> Tensor:
    for c in range(conjugate.shape[2]):
        total.addcmul_(coils[:, :, c, None], conjugate[:, None, :, c])
    return total
