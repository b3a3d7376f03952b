"""Forward operator of multi-coil Cartesian MRI."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from scoremri_core.mri.arithmetic import real_pairs, scale_complex_, y_contiguous
from scoremri_core.mri.fourier import fft, to_image, to_kspace

CACHED_VALUES = 2**17  # complex pixels per chunk on a CPU, to fit its caches


class SenseOperator:
    """SENSE operator A = w^(1/2) P F S: coil maps S, centred orthonormal FFT F, sampling mask P.

    Images are (frame, sample, set, y, x), k-space is (frame, sample, coil, y, x). The samples of a
    frame share its maps and mask. See docs/methods.md, Eq. (1).

    Parameters
    ----------
    maps : complex tensor, (frame, set, coil, y, x)
    mask : bool tensor, (frame, y, x)
        Measured samples.
    weight : real tensor, (frame, y, x), optional
        Relative number of averages w of each sample. The data are then w^(1/2) y, whose noise
        variance is uniform. Default: 1.

    Attributes
    ----------
    support : bool tensor, (frame, 1, set, y, x)
        Pixels in which the maps are not zero.

    References
    ----------
    .. [1] Pruessmann KP et al. Advances in sensitivity encoding with arbitrary k-space
       trajectories. Magn Reson Med 46:638-651 (2001).
    """

    def __init__(self, maps: Tensor, mask: Tensor, weight: Tensor | None = None) -> None:
        self.maps = y_contiguous(maps)
        self._conjugate = self.maps.conj().resolve_conj()
        self.mask = mask[:, None, None]  # (frame, 1, 1, y, x)
        self.weight = weight
        gain = mask if weight is None else mask * weight.sqrt()
        self._gain = gain[:, None, None]
        # A^H A commutes with shifts of the image, so that its FFTs need no centring; the FFT along
        # readouts cancels if all their samples have the same weight
        lines = bool((gain == gain[..., :1]).all())
        self._axes = (-2,) if lines else (-2, -1)
        reduced_mask, reduced_gain = (
            torch.fft.ifftshift(each[..., :1] if lines else each, dim=(-2, -1))
            for each in (self.mask, self._gain)
        )
        self._reduced_mask = reduced_mask
        # weights of `normal` and `adjoint_residual`, in the layout of `reduced` k-space
        self.precision = self._given_precision = reduced_gain.to(maps.real.dtype).square()
        self._weights = real_pairs(self.precision)
        self.support = y_contiguous(self.maps.abs().amax(2))[:, None] > 0  # (frame, 1, set, y, x)

    @cached_property
    def rows(self) -> list[Tensor]:
        """Indices of the measured rows of `reduced` k-space, per frame.

        Padded with other rows in frames with fewer measured rows than the others.
        """
        measured = self._reduced_mask[:, 0, 0].any(-1)
        # `nonzero` would synchronise with the device for each frame
        first = measured.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
        return list(first[:, : int(measured.sum(-1).max())])

    def forward(self, image: Tensor) -> Tensor:
        """Compute A x.

        Parameters
        ----------
        image : complex tensor, (frame, sample, set, y, x)

        Returns
        -------
        complex tensor, (frame, sample, coil, y, x)
        """
        return to_kspace(_expand(image, self.maps)) * self._gain

    def adjoint(self, kspace: Tensor) -> Tensor:
        """Compute A^H y.

        Parameters
        ----------
        kspace : complex tensor, (frame, sample, coil, y, x)

        Returns
        -------
        complex tensor, (frame, sample, set, y, x)
        """
        coils = to_image(kspace * self._gain)
        frames, samples, _, ny, nx = coils.shape
        image = coils.new_zeros(frames, samples, self.maps.shape[1], ny, nx)
        return _combine(coils, self._conjugate, image)

    def weighted(self, precision: Tensor) -> SenseOperator:
        """Return the operator with other weights W in `normal`, `adjoint_residual` and diagonals.

        Parameters
        ----------
        precision : real tensor, (frame, sample or 1, 1, y, x)
            Inverse noise variance of each real component, DC at index 0; (..., y, 1) if whole
            readouts are measured. Replaces the weight w; ignored where not measured.

        Returns
        -------
        SenseOperator
        """
        _ = self._coherence  # cached before the copy
        other = copy.copy(self)
        other.__dict__.pop("diagonal", None)
        other.precision = self._reduced_mask * precision
        other._weights = real_pairs(other.precision)
        return other

    def reduced(self, kspace: Tensor) -> Tensor:
        """Transform k-space to the layout of `adjoint_residual`, without weights.

        Parameters
        ----------
        kspace : complex tensor, (frame, coil, y, x)

        Returns
        -------
        complex tensor, (frame, coil, y, x)
            DC at index 0, and in image space along whole readouts.
        """
        if self.weight is not None:
            kspace = kspace / torch.where(self.mask, self._gain, 1)[:, 0]
        return y_contiguous(fft(to_image(kspace * self.mask[:, 0]), self._axes))

    def on_rows(self, values: Tensor) -> Tensor:
        """Scatter values to the measured rows of `reduced` k-space.

        Parameters
        ----------
        values : complex tensor, (frame or 1, sample, coil, x, row)
            Surplus rows are ignored in frames with fewer measured rows.

        Returns
        -------
        complex tensor, (frame, sample, coil, y, x)
        """
        _, samples, coils, nx, _ = values.shape
        ny = self.maps.shape[-2]
        k = values.new_zeros(len(self.rows), samples, coils, nx, ny)
        of_frames = values.expand(len(k), -1, -1, -1, -1)
        for frame, rows, of_frame in zip(k, self.rows, of_frames, strict=True):
            frame.index_copy_(-1, rows, of_frame[..., : len(rows)])
        return k.mT

    def adjoint_residual(
        self, reduced: Tensor, image: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """Compute A^H W (y + W^(-1/2) e - A x).

        Parameters
        ----------
        reduced : complex tensor, (frame, sample or 1, coil, y, x)
            Data y in the layout of `reduced`.
        image : complex tensor, (frame, sample, set, y, x)
            Image x.
        noise : complex tensor, optional
            Noise e of the measured rows, as in `on_rows`. Default: 0.

        Returns
        -------
        complex tensor, (frame, sample, set, y, x)
        """
        return self._round_trip(image, reduced, noise)

    def normal(self, image: Tensor) -> Tensor:
        """Compute A^H W A x, with fewer transforms than `adjoint` of `forward`.

        Parameters
        ----------
        image : complex tensor, (frame, sample, set, y, x)

        Returns
        -------
        complex tensor, (frame, sample, set, y, x)
        """
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
                # by chunks of coils: for all coils, this array would dominate the memory
                scattered = self.on_rows(noise[:, samples, coils])
                kspace.add_(scale_complex_(scattered, _of(root, samples)))
            coil_images = fft(kspace, self._axes, inverse=True)
            _combine(coil_images, self._conjugate[:, :, coils], total[:, samples])
        return total

    def residual_power(self, reduced: Tensor, image: Tensor) -> Tensor:
        """Compute the squared residual w |y - P F S x|^2, summed over coils.

        Parameters
        ----------
        reduced : complex tensor, (frame, sample or 1, coil, y, x)
            Data y in the layout of `reduced`.
        image : complex tensor, (frame, sample, set, y, x)

        Returns
        -------
        real tensor, (frame, sample, y, x)
            DC at index 0, zero where not measured; (frame, sample, y, 1), summed over the readout,
            if whole readouts are measured.
        """
        image = y_contiguous(image)
        power = torch.view_as_real(torch.zeros_like(image[:, :, 0]))
        for samples, coils in self._parts(image):
            kspace = fft(_expand(image[:, samples], self.maps[:, :, coils]), self._axes)
            residual = torch.sub(_of(reduced, samples)[:, :, coils], kspace, out=kspace)
            # `sum` is slow for a single coil
            for square in torch.view_as_real(residual).square_().unbind(2):
                power[:, samples] += square
        total = power.sum((-2, -1), keepdim=True) if len(self._axes) == 1 else power.sum(-1)
        return (
            total.view(*image.shape[:2], -1, self.precision.shape[-1])
            * self._given_precision[:, :, 0]
        )

    def _parts(self, image: Tensor) -> Iterator[tuple[slice, slice]]:
        """Yield chunks of samples and of coils: on a CPU, single coils."""
        coils = self.maps.shape[2]
        width = 1 if image.device.type == "cpu" else coils
        for samples in chunks(image):
            for c in range(0, coils, width):
                yield samples, slice(c, c + width)

    @cached_property
    def diagonal(self) -> Tensor:
        """Diagonal of A^H W A, real (frame, 1, set, y, x): mean of W times sum |S|^2."""
        return self.maps.abs().square().sum(2)[:, None] * self.precision.mean(
            (-2, -1), keepdim=True
        )

    def kspace_diagonal(self, weights: Tensor) -> Tensor:
        """Approximate the diagonal of F D A^H W A D F^H, with real weights D on the image.

        It is W correlated with the power spectrum of D S. The correlation of the maps at two pixels
        is approximated by a function of their distance, which is exact for constant D.

        Parameters
        ----------
        weights : real tensor, (frame, sample, set, y, x)
            Diagonal of D.

        Returns
        -------
        real tensor, (frame, sample, set, y, x)
            DC at index 0.
        """
        lags = fft(self.precision.to(self.maps.dtype), self._axes, inverse=True)
        diagonal = fft(lags * self._coherence * self._autocorrelation(weights), self._axes)
        return diagonal.real.clamp(min=0).expand(weights.shape)

    @cached_property
    def _coherence(self) -> Tensor:
        """Autocorrelation of the maps over that of their support, by lag."""
        support = self._autocorrelation(self.support.to(self.maps.real.dtype)).real
        maps = self._autocorrelation(self.maps).sum(2)[:, None].conj()
        pixels = self.maps[0, 0, 0].numel()
        return torch.where(support > 0.02 * support[..., :1, :1], maps / support, 0) / pixels

    def _autocorrelation(self, x: Tensor) -> Tensor:
        """Autocorrelation at lags (..., y, x), or (..., y, 1) if the FFT along x cancels."""
        spectrum = torch.view_as_real(torch.fft.fftn(x, dim=self._axes)).square().sum(-1)
        if len(self._axes) == 1:
            spectrum = spectrum.sum(-1, keepdim=True)
        return torch.fft.ifftn(spectrum, dim=self._axes)


def chunks(image: Tensor) -> list[slice]:
    """Split the samples of (frame, sample, ...) into chunks: on a CPU, of the size of its caches.

    Parameters
    ----------
    image : tensor, (frame, sample, ...)

    Returns
    -------
    list of slice
        On a GPU, a single one.
    """
    count = image.shape[1]
    on_cpu = image.device.type == "cpu"
    step = max(1, CACHED_VALUES // image[:, 0].numel()) if on_cpu else count
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _of(each: Tensor, samples: slice) -> Tensor:
    """Select samples of (frame, sample, ...), or return the common (frame, 1, ...)."""
    return each if each.shape[1] == 1 else each[:, samples]


# Sums run coil by coil in fixed order: the rounding of matrix products depends on the batch size.
def _expand(image: Tensor, maps: Tensor) -> Tensor:
    """Compute S x, (frame, sample, coil, y, x)."""
    coils = image[:, :, 0, None] * maps[:, None, 0]
    for i in range(1, maps.shape[1]):
        coils.addcmul_(image[:, :, i, None], maps[:, None, i])
    return coils


def _combine(coils: Tensor, conjugate: Tensor, total: Tensor) -> Tensor:
    """Add S^H coils to `total`, (frame, sample, set, y, x)."""
    for c in range(conjugate.shape[2]):
        total.addcmul_(coils[:, :, c, None], conjugate[:, None, :, c])
    return total
