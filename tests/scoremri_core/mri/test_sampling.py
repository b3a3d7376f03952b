"""Extent of measured k-space, and reconstruction of interpolated matrices."""

import numpy as np
import pytest
import sigpy.mri
import torch

from scoremri_core import reconstruct
from scoremri_core.mri.classical import mvue
from scoremri_core.mri.fourier import resample, resize, to_kspace
from scoremri_core.mri.sampling import GAP, sampled_box, unsampled_fraction
from scoremri_core.simulation.masks import make_mask


def block(shape, inner):
    """A mask (y, x) of a central block."""
    return resize(np.ones(inner, bool), shape)


def lines(shape, acceleration):
    return np.broadcast_to(
        make_mask("equispaced", shape[:1], acceleration, 24).sampled[:, None], shape
    )


def ellipse(shape):
    y, x = ((np.arange(n) - n // 2) / (n / 2) for n in shape)
    return y[:, None] ** 2 + x**2 <= 1


@pytest.mark.parametrize("shape", [(96, 96), (97, 95), (33, 128), (8, 8), (1, 7)])
def test_box_of_a_full_scan_is_the_matrix(shape):
    assert sampled_box(np.ones(shape, bool)) == shape
    assert unsampled_fraction(np.ones(shape, bool)) == 0


@pytest.mark.parametrize("acceleration", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("shape", [(128, 96), (131, 95)])
def test_box_of_equispaced_lines_is_the_matrix(shape, acceleration):
    """The outermost line is up to R lines from the edge."""
    assert sampled_box(lines(shape, acceleration)) == shape
    assert unsampled_fraction(lines(shape, acceleration)) == 0


def test_box_of_poisson_lines_is_the_matrix():
    mask = make_mask("poisson", (192,), 4, 24, seed=1).sampled
    mask = np.broadcast_to(mask[:, None], (192, 160))
    assert sampled_box(mask) == mask.shape
    assert unsampled_fraction(mask) == 0


def test_box_of_random_lines_is_the_matrix():
    line = make_mask("random", (192,), 4, 24, seed=1).sampled
    assert sampled_box(np.broadcast_to(line[:, None], (192, 160))) == (192, 160)


def test_unsampled_fraction_of_partial_fourier():
    mask = np.zeros((160, 128), bool)
    mask[: 160 * 5 // 8] = True
    assert sampled_box(mask) == mask.shape
    assert unsampled_fraction(mask) == pytest.approx(3 / 8, abs=0.01)
    partial_echo = mask.T
    assert sampled_box(partial_echo) == partial_echo.shape
    assert unsampled_fraction(partial_echo) == pytest.approx(3 / 8, abs=0.01)


def test_unsampled_fraction_of_undersampled_partial_fourier():
    mask = lines((160, 128), 4).copy()
    mask[100:] = False
    assert sampled_box(mask) == mask.shape
    # the last measured line is up to R before the end
    assert unsampled_fraction(mask) == pytest.approx(3 / 8, abs=4 / 160)


def test_box_of_an_interpolated_matrix_is_that_of_its_samples():
    mask = block((156, 448), (84, 240))
    box = sampled_box(mask)
    # slightly larger, for even sizes with fast FFTs
    assert 84 <= box[0] <= 92
    assert 240 <= box[1] <= 250
    assert all(n % 2 == 0 for n in box)
    assert resize(resize(mask, box), mask.shape).sum() == mask.sum()
    assert unsampled_fraction(mask) == pytest.approx(1 - 84 * 240 / (156 * 448), abs=0.01)


def test_unsampled_fraction_of_an_ellipse_is_that_of_the_corners():
    mask = ellipse((192, 160))
    assert sampled_box(mask) == mask.shape
    corners = 1 - np.pi / 4
    # points close to a sample count as sampled
    assert corners / 2 < unsampled_fraction(mask) <= corners


def test_box_of_an_empty_mask_is_the_matrix():
    assert sampled_box(np.zeros((40, 31), bool)) == (40, 31)
    assert unsampled_fraction(np.zeros((40, 31), bool)) == 1


@pytest.mark.parametrize("shape", [(101, 77), (100, 77), (63, 200)])
@pytest.mark.parametrize("inner", [(41, 33), (40, 32), (1, 1), (61, 75)])
def test_box_contains_all_samples(shape, inner):
    mask = block(shape, inner)
    box = sampled_box(mask)
    assert all(b <= n for b, n in zip(box, shape, strict=True))
    assert resize(mask, box).sum() == mask.sum()


@pytest.mark.parametrize("offset", [(5, 0), (-7, 3), (0, -9)])
def test_box_contains_all_samples_of_an_off_centre_block(offset):
    mask = np.roll(block((120, 120), (40, 40)), offset, (0, 1))
    assert resize(mask, sampled_box(mask)).sum() == mask.sum()


def test_only_wide_gaps_are_unsampled():
    mask = np.zeros((200, 64), bool)
    mask[:: GAP - 1] = True
    assert unsampled_fraction(mask) == 0
    mask = np.ones((200, 64), bool)
    mask[120:160] = False
    assert unsampled_fraction(mask) == pytest.approx(40 / 200, abs=0.01)


# reconstruction of an interpolated matrix
NY, NX, COILS, SIGMA = 96, 96, 4, 0.004
LARGE = (160, 176)
RATIO = np.sqrt(LARGE[0] * LARGE[1] / (NY * NX))  # of k-space values at the same pixel values


def head(ny, nx):
    """A smooth object, without signal outside the smaller grid."""
    y, x = ((np.arange(n) - n // 2) / (n / 2) for n in (ny, nx))
    y, x = y[:, None], x[None]
    magnitude = np.exp(-(((y / 0.55) ** 2 + (x / 0.5) ** 2) ** 2))
    return magnitude * (0.8 + 0.2 * np.cos(5 * x) * np.cos(4 * y)) * np.exp(1j * (x + 0.5 * y))


def coil_maps(ny=NY, nx=NX):
    maps = sigpy.mri.birdcage_maps((COILS, ny, nx))
    return (maps / np.linalg.norm(maps, axis=0)).astype(np.complex64)


@pytest.fixture(scope="module")
def small():
    """Fully sampled k-space (coil, y, x) of the small matrix."""
    rng = np.random.default_rng(0)
    noise = (rng.standard_normal((2, COILS, NY, NX)) * [[[[1]]], [[[1j]]]]).sum(0)
    return (to_kspace(coil_maps() * head(NY, NX)) + SIGMA * noise).astype(np.complex64)


class Wiener:
    """A Gaussian prior of any size."""

    def __init__(self):
        self.shapes = set()

    def denoise_with_variance(self, x, sigma):
        self.shapes.add(tuple(x.shape[-2:]))
        ky, kx = (torch.fft.fftfreq(n) * n for n in x.shape[-2:])
        shape = x.shape[-2] * x.shape[-1] / (NY * NX)
        power = shape * 400 / (1 + ky[:, None] ** 2 + kx**2) ** 1.8
        gain = power / (power + sigma.view(-1, 1, 1) ** 2)
        denoised = torch.fft.ifft2(gain * torch.fft.fft2(x))
        variance = (gain.mean((-2, -1), keepdim=True) * sigma.view(-1, 1, 1) ** 2).expand(x.shape)
        return denoised, variance

    def denoise(self, x, sigma):
        return self.denoise_with_variance(x, sigma)[0]


OPTIONS = {"samples": 8, "steps": 5, "device": "cpu", "noise_covariance": 2 * SIGMA**2 * np.eye(4)}


@pytest.fixture(scope="module", params=["given", "estimated"])
def both(request, small):
    """Reconstructions on the small and the interpolated matrix at R = 2."""
    mask = make_mask("equispaced", (NY,), 2, 24).sampled
    measured = small * mask[:, None]
    maps = (coil_maps(), coil_maps(*LARGE)) if request.param == "given" else ("auto", "auto")
    prior = Wiener()
    single = reconstruct(measured, prior=prior, maps=maps[0], **OPTIONS)
    assert prior.shapes == {(NY, NX)}
    prior.shapes.clear()
    large = reconstruct(resize(measured, LARGE), prior=prior, maps=maps[1], **OPTIONS)
    return single, large, prior.shapes


def test_image_is_sampled_on_the_box_and_returned_on_the_matrix(both):
    _, large, shapes = both
    box = shapes.pop()
    assert not shapes
    assert NY <= box[0] <= NY + 8
    assert NX <= box[1] <= NX + 8
    assert large.mean.shape == large.std.shape == (1, *LARGE)
    assert large.samples.shape == (1, 8, *LARGE)
    assert large.maps.shape == (1, 1, COILS, *LARGE)
    norm = np.linalg.norm(large.maps[0, 0], axis=0)
    np.testing.assert_allclose(norm, 1, atol=1e-3)


def test_image_has_no_signal_outside_the_box(both):
    _, large, _ = both
    for images in (large.mean[0], *large.samples[0]):
        kspace = np.abs(to_kspace(images))
        outside = ~block(LARGE, (NY + 8, NX + 8))
        assert kspace[outside].max() < 1e-3 * kspace.max()


def test_image_is_that_of_the_small_matrix_interpolated(both):
    """With orthonormal transforms, pixel values decrease with the size of the matrix."""
    single, large, _ = both
    expected = resample(single.mean[0], LARGE) / RATIO
    error = np.linalg.norm(np.abs(large.mean[0]) - np.abs(expected))
    assert error < 0.01 * np.linalg.norm(expected)
    inside = np.abs(expected) > 0.2 * np.abs(expected).max()
    assert np.median(np.abs(large.mean[0] / expected)[inside]) == pytest.approx(1, abs=2e-3)
    # larger, since the box is slightly larger than the block of samples
    assert single.std.mean() < large.std.mean() * RATIO < 1.15 * single.std.mean()


def test_info_is_in_the_units_of_the_input(both):
    """Noise refers to the samples, the scale to the returned image."""
    single, large, _ = both
    assert large.info.sigma_thermal[0] == pytest.approx(SIGMA)
    assert large.info.sigma_n[0] == pytest.approx(single.info.sigma_n[0], rel=0.1)
    assert large.info.scale[0] * RATIO == pytest.approx(single.info.scale[0], rel=0.02)
    assert large.info.misfit[0] == pytest.approx(single.info.misfit[0], rel=0.1)
    assert large.info.reason is None
    assert single.info.unacquired == 0
    assert large.info.unacquired == pytest.approx(1 - NY * NX / np.prod(LARGE), abs=0.01)


def test_scale_refers_to_the_returned_image(small):
    mask = make_mask("equispaced", (NY,), 2, 24).sampled
    options = {**OPTIONS, "prior": Wiener(), "maps": coil_maps(*LARGE)}
    data = resize(small * mask[:, None], LARGE)
    found = reconstruct(data, **options)
    given = reconstruct(data, scale=found.info.scale[0], **options)
    assert given.info.scale[0] == pytest.approx(found.info.scale[0])
    np.testing.assert_allclose(given.mean, found.mean, atol=1e-5 * np.abs(found.mean).max())


@pytest.mark.parametrize("maps", ["given", "estimated"])
def test_image_of_full_data_is_close_to_the_mvue(small, maps):
    data = resize(small, LARGE)
    maps = coil_maps(*LARGE) if maps == "given" else "auto"
    result = reconstruct(data, prior=Wiener(), maps=maps, **OPTIONS)
    expected = mvue(data, result.maps[0, 0])
    inside = np.abs(expected) > 0.2 * np.abs(expected).max()
    ratio = np.abs(result.mean[0] / expected)[inside]
    assert np.median(ratio) == pytest.approx(1, abs=0.01)
    error = np.abs(result.mean[0] - expected)[inside]
    assert np.sqrt(np.mean(error**2)) < 0.01 * np.abs(expected).max()


def test_fallback_has_the_shape_and_the_units_of_the_matrix(small):
    data = resize(small, LARGE)
    expected = mvue(data, coil_maps(*LARGE))

    class OutOfMemory:
        def denoise(self, x, sigma):
            raise MemoryError

    options = {**OPTIONS, "prior": OutOfMemory()}
    result = reconstruct(data, maps=coil_maps(*LARGE), **options)
    assert result.info.reason.startswith("out of memory")
    assert result.mean.shape == (1, *LARGE)
    assert np.linalg.norm(np.abs(result.mean[0]) - np.abs(expected)) < 0.05 * np.linalg.norm(
        expected
    )
