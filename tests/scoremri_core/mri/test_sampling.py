"""What a scan reaches of k-space, and images on a matrix larger than that."""

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
    """A mask (y, x) whose samples lie on the central grid of `inner` points."""
    return resize(np.ones(inner, bool), shape)


def lines(shape, acceleration):
    return np.broadcast_to(
        make_mask("equispaced", shape[:1], acceleration, 24).sampled[:, None], shape
    )


def ellipse(shape):
    y, x = ((np.arange(n) - n // 2) / (n / 2) for n in shape)
    return y[:, None] ** 2 + x**2 <= 1


@pytest.mark.parametrize("shape", [(96, 96), (97, 95), (33, 128), (8, 8), (1, 7)])
def test_a_full_scan_reaches_its_matrix(shape):
    assert sampled_box(np.ones(shape, bool)) == shape
    assert unsampled_fraction(np.ones(shape, bool)) == 0


@pytest.mark.parametrize("acceleration", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("shape", [(128, 96), (131, 95)])
def test_undersampling_reaches_the_matrix_as_well(shape, acceleration):
    """The outermost line of an undersampled scan is up to R lines from the edge."""
    assert sampled_box(lines(shape, acceleration)) == shape
    assert unsampled_fraction(lines(shape, acceleration)) == 0


def test_poisson_lines_reach_the_matrix_and_leave_no_hole():
    mask = make_mask("poisson", (192,), 4, 24, seed=1).sampled
    mask = np.broadcast_to(mask[:, None], (192, 160))
    assert sampled_box(mask) == mask.shape
    assert unsampled_fraction(mask) == 0


def test_random_lines_keep_the_matrix_though_they_hardly_reach_its_edges():
    line = make_mask("random", (192,), 4, 24, seed=1).sampled
    assert sampled_box(np.broadcast_to(line[:, None], (192, 160))) == (192, 160)


def test_partial_fourier_reaches_the_matrix_and_leaves_a_part_of_it():
    """One side is measured to the edge: the box about DC is all of it, the rest is named."""
    mask = np.zeros((160, 128), bool)
    mask[: 160 * 5 // 8] = True
    assert sampled_box(mask) == mask.shape
    assert unsampled_fraction(mask) == pytest.approx(3 / 8, abs=0.01)
    partial_echo = mask.T
    assert sampled_box(partial_echo) == partial_echo.shape
    assert unsampled_fraction(partial_echo) == pytest.approx(3 / 8, abs=0.01)


def test_partial_fourier_with_undersampling_leaves_what_it_leaves():
    mask = lines((160, 128), 4).copy()
    mask[100:] = False
    assert sampled_box(mask) == mask.shape
    # the last line measured may be up to R before the end
    assert unsampled_fraction(mask) == pytest.approx(3 / 8, abs=4 / 160)


def test_an_interpolated_matrix_has_the_box_of_its_samples():
    mask = block((156, 448), (84, 240))
    box = sampled_box(mask)
    # a sample at -42 needs 85 points about DC where the grid is odd: at most a few more than 84
    assert 84 <= box[0] <= 92
    assert 240 <= box[1] <= 250
    assert all(n % 2 == 0 for n in box)
    assert resize(resize(mask, box), mask.shape).sum() == mask.sum()
    assert unsampled_fraction(mask) == pytest.approx(1 - 84 * 240 / (156 * 448), abs=0.01)


def test_an_ellipse_reaches_the_matrix_and_leaves_its_corners():
    mask = ellipse((192, 160))
    assert sampled_box(mask) == mask.shape
    corners = 1 - np.pi / 4
    # what is near to a sample counts as acquired, of corners as well
    assert corners / 2 < unsampled_fraction(mask) <= corners


def test_an_empty_mask_has_the_box_of_the_matrix():
    assert sampled_box(np.zeros((40, 31), bool)) == (40, 31)
    assert unsampled_fraction(np.zeros((40, 31), bool)) == 1


@pytest.mark.parametrize("shape", [(101, 77), (100, 77), (63, 200)])
@pytest.mark.parametrize("inner", [(41, 33), (40, 32), (1, 1), (61, 75)])
def test_no_sample_lies_outside_of_the_box(shape, inner):
    mask = block(shape, inner)
    box = sampled_box(mask)
    assert all(b <= n for b, n in zip(box, shape, strict=True))
    assert resize(mask, box).sum() == mask.sum()


@pytest.mark.parametrize("offset", [(5, 0), (-7, 3), (0, -9)])
def test_a_block_beside_dc_is_reached_by_a_box_about_dc(offset):
    mask = np.roll(block((120, 120), (40, 40)), offset, (0, 1))
    assert resize(mask, sampled_box(mask)).sum() == mask.sum()


def test_gaps_of_undersampling_are_no_holes_and_wider_ones_are():
    mask = np.zeros((200, 64), bool)
    mask[:: GAP - 1] = True
    assert unsampled_fraction(mask) == 0
    mask = np.ones((200, 64), bool)
    mask[120:160] = False
    assert unsampled_fraction(mask) == pytest.approx(40 / 200, abs=0.01)


# Reconstruction of an interpolated matrix.
NY, NX, COILS, SIGMA = 96, 96, 4, 0.004
LARGE = (160, 176)
RATIO = np.sqrt(LARGE[0] * LARGE[1] / (NY * NX))  # of k-space values at the same pixel values


def head(ny, nx):
    """Smooth, so that no sample outside of the smaller grid is missed."""
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
    """A Gaussian prior of whatever size is asked for."""

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
    """The small matrix and the large one at R = 2, with maps of one kind."""
    mask = make_mask("equispaced", (NY,), 2, 24).sampled
    measured = small * mask[:, None]
    maps = {
        "given": (coil_maps(), coil_maps(*LARGE)),
        "estimated": ("auto", "auto"),
    }[request.param]
    prior = Wiener()
    alone = reconstruct(measured, prior=prior, maps=maps[0], **OPTIONS)
    assert prior.shapes == {(NY, NX)}
    prior.shapes.clear()
    large = reconstruct(resize(measured, LARGE), prior=prior, maps=maps[1], **OPTIONS)
    return alone, large, prior.shapes


def test_it_is_sampled_on_the_box_and_sent_on_the_matrix(both):
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


def test_nothing_is_invented_where_nothing_was_measured(both):
    _, large, _ = both
    for images in (large.mean[0], *large.samples[0]):
        kspace = np.abs(to_kspace(images))
        outside = ~block(LARGE, (NY + 8, NX + 8))
        assert kspace[outside].max() < 1e-3 * kspace.max()


def test_it_is_the_image_of_the_small_matrix_interpolated(both):
    """Orthonormal transforms: the same k-space on more pixels has smaller values in each.

    The random numbers of eight samples balance: what differs in their means is little.
    """
    alone, large, _ = both
    expected = resample(alone.mean[0], LARGE) / RATIO
    error = np.linalg.norm(np.abs(large.mean[0]) - np.abs(expected))
    assert error < 0.01 * np.linalg.norm(expected)
    inside = np.abs(expected) > 0.2 * np.abs(expected).max()
    assert np.median(np.abs(large.mean[0] / expected)[inside]) == pytest.approx(1, abs=2e-3)
    # on the lines that the box has more than the samples the prior alone speaks
    assert alone.std.mean() < large.std.mean() * RATIO < 1.15 * alone.std.mean()


def test_info_is_in_the_units_of_the_input(both):
    """Noise is a property of the samples; the scale one of the image that comes out."""
    alone, large, _ = both
    assert large.info.sigma_thermal[0] == pytest.approx(SIGMA)
    assert large.info.sigma_n[0] == pytest.approx(alone.info.sigma_n[0], rel=0.1)
    assert large.info.scale[0] * RATIO == pytest.approx(alone.info.scale[0], rel=0.02)
    assert large.info.misfit[0] == pytest.approx(alone.info.misfit[0], rel=0.1)
    assert large.info.reason is None
    assert alone.info.unacquired == 0
    assert large.info.unacquired == pytest.approx(1 - NY * NX / np.prod(LARGE), abs=0.01)


def test_a_scale_that_is_given_is_that_of_the_image_that_comes_out(small):
    mask = make_mask("equispaced", (NY,), 2, 24).sampled
    options = {**OPTIONS, "prior": Wiener(), "maps": coil_maps(*LARGE)}
    data = resize(small * mask[:, None], LARGE)
    found = reconstruct(data, **options)
    given = reconstruct(data, scale=found.info.scale[0], **options)
    assert given.info.scale[0] == pytest.approx(found.info.scale[0])
    np.testing.assert_allclose(given.mean, found.mean, atol=1e-5 * np.abs(found.mean).max())


@pytest.mark.parametrize("maps", ["given", "estimated"])
def test_a_fully_sampled_object_has_the_values_of_its_mvue(small, maps):
    data = resize(small, LARGE)
    own = coil_maps(*LARGE) if maps == "given" else "auto"
    result = reconstruct(data, prior=Wiener(), maps=own, **OPTIONS)
    expected = mvue(data, result.maps[0, 0])
    inside = np.abs(expected) > 0.2 * np.abs(expected).max()
    ratio = np.abs(result.mean[0] / expected)[inside]
    assert np.median(ratio) == pytest.approx(1, abs=0.01)
    error = np.abs(result.mean[0] - expected)[inside]
    assert np.sqrt(np.mean(error**2)) < 0.01 * np.abs(expected).max()


def test_a_fallback_has_the_shape_and_the_units_of_the_matrix(small):
    data = resize(small, LARGE)
    expected = mvue(data, coil_maps(*LARGE))

    class Hungry:
        def denoise(self, x, sigma):
            raise MemoryError

    options = {**OPTIONS, "prior": Hungry()}
    result = reconstruct(data, maps=coil_maps(*LARGE), **options)
    assert result.info.reason.startswith("out of memory")
    assert result.mean.shape == (1, *LARGE)
    assert np.linalg.norm(np.abs(result.mean[0]) - np.abs(expected)) < 0.05 * np.linalg.norm(
        expected
    )
