"""Noise estimates from residuals against simulated noise of known covariance."""

import numpy as np
import pytest
import sigpy.mri
import torch

from scoremri_core.kspace import KSpace
from scoremri_core.mri.fourier import to_image, to_kspace
from scoremri_core.mri.noise.covariance import covariance_from_edges, noise_sigma, whitening_matrix
from scoremri_core.mri.sampling import measured
from scoremri_core.mri.sense import SenseOperator
from scoremri_core.recon.noise_model import (
    EXCESS_VARIANCE,
    MIN_SIGMA,
    NoiseModel,
    raise_covariance,
    residual_covariance,
    with_min_sigma,
)
from scoremri_core.samplers.noise_level import RINGS, NoiseLevel

N, COILS, LINES = 96, 6, 24
SD = 0.01 * np.array([0.7, 0.8, 0.9, 1.0, 1.2, 1.4])  # of the complex noise, coil by coil


def disc():
    """A smooth object (y, x) and its support."""
    y, x = np.mgrid[-1 : 1 : N * 1j, -1 : 1 : N * 1j]
    radius = np.hypot(y / 0.85, x / 0.7)
    # edges that the calibration lines resolve, without Gibbs ringing
    magnitude = np.clip((1 - radius) / 0.3, 0, 1) * (0.7 + 0.2 * np.cos(4 * x) * np.cos(3 * y))
    return magnitude * np.exp(1j * (x + 0.5 * y)), radius < 1


def coil_maps():
    maps = sigpy.mri.birdcage_maps((COILS, N, N))
    return (maps / np.linalg.norm(maps, axis=0)).astype(np.complex64)


def covariance():
    """Covariance of noise that is correlated and unequal between coils."""
    rng = np.random.default_rng(7)
    mixing = np.eye(COILS) + 0.3 * np.exp(2j * np.pi * rng.uniform(size=(COILS, 1))) * np.roll(
        np.eye(COILS), 1, axis=1
    )
    correlation = mixing @ mixing.conj().T
    scale = SD / np.sqrt(np.diag(correlation).real)
    return scale[:, None] * correlation * scale


def noise(seed=0):
    rng = np.random.default_rng(seed)
    white = rng.standard_normal((2, COILS, N * N)) / np.sqrt(2)
    root = np.linalg.cholesky(covariance())
    return (root @ (white[0] + 1j * white[1])).reshape(COILS, N, N)


def scan(maps, image, seed=0):
    """24 calibration lines, (coil, y, x), of an image with maps (set, coil, y, x)."""
    kspace = to_kspace((maps * image).sum(0)) + noise(seed)
    return calibration_lines(kspace)


def calibration_lines(kspace):
    lines = np.abs(np.arange(N) - N // 2 + 0.5) < LINES / 2
    return (kspace * lines[:, None]).astype(np.complex64)


def sd(matrix):
    return np.sqrt(np.diag(matrix).real)


def test_residual_covariance_is_that_of_the_noise():
    maps = coil_maps()[None]
    found = residual_covariance(scan(maps, disc()[0]), maps)
    np.testing.assert_allclose(sd(found) / SD, 1, atol=0.25)
    np.testing.assert_allclose(found, found.conj().T)


@pytest.mark.parametrize("factor", [1e-4, 1e3])
def test_residual_covariance_scales_with_the_data(factor):
    maps = coil_maps()[None]
    one = residual_covariance(scan(maps, disc()[0]), maps)
    other = residual_covariance(factor * scan(maps, disc()[0]), maps)
    np.testing.assert_allclose(other / factor**2, one, rtol=1e-3, atol=1e-3 * np.abs(one).max())


def test_masked_background_biases_the_edge_estimate_but_not_the_residual():
    """Vendors set coil images to zero outside the object."""
    image, inside = disc()
    coils = coil_maps() * image + to_image(noise())
    # fully sampled: the estimate from the edges uses columns next to the object
    masked = to_kspace(coils * inside)
    assert (sd(covariance_from_edges(masked)) < SD / 5).all()
    found = residual_covariance(calibration_lines(masked), coil_maps()[None])
    np.testing.assert_allclose(sd(found) / SD, 1, atol=0.3)


def test_residual_under_a_filter_is_between_the_filtered_and_the_full_noise():
    """The square root of a Hann window attenuates noise in the outer part of the readout."""
    window = np.sqrt(np.hanning(N + 2)[1:-1])
    maps = coil_maps()[None]
    found = residual_covariance(scan(maps, disc()[0]) * window.astype(np.float32), maps)
    assert (sd(found) < 1.1 * SD).all()
    assert (sd(found) > 0.2 * SD).all()


def test_two_sets_of_maps_explain_an_aliased_object():
    """With the first set only, the alias is part of the residual."""
    image, _ = disc()
    first = coil_maps()
    second = np.roll(first, N // 2, axis=-2)
    images = np.stack([image, np.roll(0.5 * image, N // 2, axis=-2)])[:, None]
    maps = np.stack([first, second])
    data = scan(maps, images)
    np.testing.assert_allclose(sd(residual_covariance(data, maps)) / SD, 1, atol=0.3)
    # a smooth object hardly contributes to the outer samples
    assert residual_covariance(data, maps[:1]) is not None


def test_zero_second_set_changes_only_the_normalisation():
    maps = np.stack([coil_maps(), np.zeros_like(coil_maps())])
    data = scan(maps[:1], disc()[0])
    one, two = residual_covariance(data, maps[:1]), residual_covariance(data, maps)
    # the factor assumes that the second set spans a direction in every pixel
    ratio = np.sqrt((COILS - 1) / (COILS - 2))
    np.testing.assert_allclose(sd(two), ratio * sd(one), rtol=1e-4)


def test_insufficient_data_give_none():
    maps = coil_maps()[None]
    data = scan(maps, disc()[0])
    assert residual_covariance(data[:1], maps[:, :1]) is None  # one coil leaves no residual
    assert residual_covariance(data[:2], np.stack([maps[0, :2]] * 2)) is None
    empty = data.copy()
    empty[:, N // 2 - 2 : N // 2 + 2] = 0
    assert residual_covariance(empty, maps) is None
    few = np.zeros_like(data)
    few[:, N // 2 - 3 : N // 2 + 3] = data[:, N // 2 - 3 : N // 2 + 3]
    assert residual_covariance(few, maps) is None
    short = np.zeros_like(data)  # readouts that end before the outer samples
    short[..., N // 4 : -N // 4] = data[..., N // 4 : -N // 4]
    assert residual_covariance(short, maps) is None


def random_covariance(seed, coils=4):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, coils, 3 * coils))
    x = x[0] + 1j * x[1]
    return x @ x.conj().T / x.shape[1]


@pytest.mark.parametrize("unit", [1.0, 1e4])
def test_noise_update_commutes_with_mixing_of_the_coils(unit):
    maps = coil_maps()[None]
    data, covariance = scan(maps, disc()[0]), (2 * SD**2 / 3) * np.eye(COILS)
    rng = np.random.default_rng(3)
    mixing = np.eye(COILS) + 0.4 * (rng.standard_normal((2, COILS, COILS)) * [[[1]], [[1j]]]).sum(0)
    plain = NoiseModel(covariance)
    mixed = NoiseModel(unit**2 * mixing @ covariance @ mixing.conj().T)
    assert plain.update_from_calibration(KSpace(data, measured(data)), maps)
    mixed_data = unit * np.einsum("cd,dyx->cyx", mixing, data).astype(np.complex64)
    assert mixed.update_from_calibration(
        KSpace(mixed_data, measured(data)),
        np.einsum("cd,sdyx->scyx", mixing, maps).astype(np.complex64),
    )
    back = np.linalg.inv(unit * mixing)
    found = back @ mixed.covariance @ back.conj().T
    np.testing.assert_allclose(found, plain.covariance, atol=0.03 * np.abs(found).max())


@pytest.mark.parametrize("seed", range(6))
def test_raised_covariance_is_the_maximum_in_each_whitened_direction(seed):
    assumed, observed = random_covariance(seed), 3 * random_covariance(seed + 100)
    got = raise_covariance(assumed, observed)
    # the Hermitian root by scipy's definition, not by `whitening_matrix`
    values, vectors = np.linalg.eigh(assumed)
    root = (vectors * np.sqrt(values)) @ vectors.conj().T
    inverse = np.linalg.inv(root)
    values, vectors = np.linalg.eigh(inverse @ observed @ inverse)
    larger = np.where(values > EXCESS_VARIANCE, values, 1)
    expected = root @ (vectors * larger) @ vectors.conj().T @ root
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)
    least = np.linalg.eigvalsh(got - assumed).min()
    assert least >= -1e-9 * np.linalg.eigvalsh(got).max()


def test_covariance_is_not_raised_without_excess_noise():
    assumed = random_covariance(0)
    assert raise_covariance(assumed, None) is assumed
    assert raise_covariance(assumed, 0.3 * assumed) is assumed
    assert raise_covariance(assumed, 0.99 * EXCESS_VARIANCE * assumed) is assumed
    np.testing.assert_allclose(raise_covariance(assumed, 4 * assumed), 4 * assumed)


def test_observed_noise_whitened_by_the_raised_covariance_is_at_most_1_5():
    assumed, observed = random_covariance(3), 5 * random_covariance(4)
    whitening = whitening_matrix(raise_covariance(assumed, observed)) / np.sqrt(2)
    largest = np.linalg.eigvalsh(whitening @ observed @ whitening.conj().T).max()
    assert largest <= EXCESS_VARIANCE + 1e-9


def test_covariance_is_scaled_up_to_the_minimum_sd():
    assumed = random_covariance(1)
    sigma = noise_sigma(assumed)
    assert with_min_sigma(assumed, sigma / 2) is assumed
    enlarged = with_min_sigma(assumed, 10 * sigma)
    assert noise_sigma(enlarged) == pytest.approx(10 * sigma)
    # correlations and ratios between coils do not change
    np.testing.assert_allclose(enlarged / assumed, 100)


def test_noise_floor_is_relative_to_the_scale_and_the_most_averages():
    averages = np.array([[1, 4]], np.float32)
    model = NoiseModel(1e-12 * np.eye(3), averages)
    model.apply_floor(scale=2.0)
    assert noise_sigma(model.covariance) == pytest.approx(MIN_SIGMA * 2.0 * 4**0.5)


SIDE = 64


@pytest.fixture(params=["lines", "points"])
def operator(request):
    """Two frames of three coils: whole readouts, or samples dropped along both axes."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 1, 3, SIDE, SIDE, dtype=torch.complex64, generator=generator)
    mask = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    mask[:, ::2] = True
    mask[:, SIDE // 2 - 8 : SIDE // 2 + 8] = True
    if request.param == "points":
        mask[..., ::3] = False
    return SenseOperator(maps, mask)


def radius():
    y = torch.arange(SIDE) - SIDE // 2
    return torch.hypot(y[:, None].float(), y.float()) / SIDE * 2 * RINGS


def white(samples, generator):
    """Noise of sd 1 in each real component, (frame, sample, coil, y, x)."""
    return torch.view_as_complex(torch.randn(2, samples, 3, SIDE, SIDE, 2, generator=generator))


def residual(operator, kspace):
    """Compute `residual_power` of k-space residuals (frame, sample, coil, y, x)."""
    powers = []
    for i in range(kspace.shape[1]):
        reduced = operator.reduced(kspace[:, i])[:, None]
        zero = torch.zeros(2, 1, 1, SIDE, SIDE, dtype=torch.complex64)
        powers.append(operator.residual_power(reduced, zero))
    return torch.cat(powers, 1)


def level_of(operator, sigma, data=None):
    """Create the noise level for data (frame, coil, y, x); None for no signal."""
    if data is None:
        data = torch.zeros(2, 3, SIDE, SIDE, dtype=torch.complex64)
    return NoiseLevel(operator, sigma, operator.reduced(data)[:, None])


def test_level_hardly_changes_if_the_assumed_noise_is_correct(operator):
    level = level_of(operator, torch.tensor([1.0, 1.0]))
    level.update(residual(operator, white(2, torch.Generator().manual_seed(1))))
    measured = (operator.precision > 0).expand_as(level.variance[:, :1])
    values = level.variance[measured.expand_as(level.variance)]
    assert float(values.min()) == 1.0
    assert float(values.mean()) < 1.1


def test_more_noise_in_one_ring_raises_only_that_ring():
    generator = torch.Generator().manual_seed(2)
    maps = torch.ones(2, 1, 3, SIDE, SIDE, dtype=torch.complex64)
    # missing columns, since the power of whole readouts is summed along them
    mask = torch.ones(2, SIDE, SIDE, dtype=torch.bool)
    mask[:, :, ::5] = False
    operator = SenseOperator(maps, mask)
    inside = ((radius() > 5) & (radius() < 7)).float()
    sigma = torch.tensor([0.1, 0.02])
    noise = white(2, generator) * (1 + 2 * inside) * sigma.view(2, 1, 1, 1, 1)
    level = level_of(operator, sigma)
    level.update(residual(operator, noise))
    ratio = torch.fft.fftshift(level.variance / sigma.view(2, 1, 1, 1, 1) ** 2, dim=(-2, -1))
    ring = ((radius() - 6).abs() < 0.2).expand_as(ratio)
    # a sample belongs to its two nearest rings, which blurs the 9
    assert float(ratio[ring].mean()) == pytest.approx(9, rel=0.25)
    away = ((radius() - 6).abs() > 2.5).expand_as(ratio)
    assert float(ratio[away].mean()) < 1.15
    assert float(ratio.min()) >= 1 - 1e-6


@pytest.mark.parametrize("operator", ["lines"], indirect=True)
def test_more_noise_in_a_band_of_lines_raises_those_lines(operator):
    """The power of whole readouts is summed, so that a ring is a pair of lines."""
    generator = torch.Generator().manual_seed(3)
    y = (torch.arange(SIDE) - SIDE // 2).abs()
    band = (y < 6).float()[:, None]
    level = level_of(operator, torch.tensor([1.0, 1.0]))
    level.update(residual(operator, white(2, generator) * (1 + 2 * band)))
    lines = torch.fft.fftshift(level.variance, dim=-2)[..., 0]  # kx = 0
    assert float(lines[..., SIDE // 2 - 1 : SIDE // 2 + 2].mean()) > 5
    far = lines[..., y > 12]
    assert float(far.mean()) < 2


def test_level_never_falls_below_the_assumed_noise(operator):
    sigma = torch.tensor([0.5, 0.1])
    level = level_of(operator, sigma)
    level.update(residual(operator, 0.01 * white(2, torch.Generator().manual_seed(4))))
    least = (sigma**2).view(2, 1, 1, 1, 1).expand_as(level.variance)
    torch.testing.assert_close(level.variance, least)


def test_residuals_that_are_not_finite_do_not_change_the_level(operator):
    level = level_of(operator, torch.tensor([0.5, 0.1]))
    power = residual(operator, white(2, torch.Generator().manual_seed(4)))
    level.update(power * torch.tensor([torch.nan, 1.0]).view(1, 2, 1, 1))
    assert bool(level.variance.isfinite().all())
    assert float(level.variance[0, 0].max()) == 0.25
    assert float(level.variance[0, 1].max()) > 0.5


def test_level_of_a_sample_does_not_depend_on_the_batch(operator):
    power = residual(operator, white(3, torch.Generator().manual_seed(5)))
    power[0, 1] *= 100
    together = level_of(operator, torch.tensor([0.5, 0.1]))
    together.follow(power)
    for i in range(3):
        alone = level_of(operator, torch.tensor([0.5, 0.1]))
        alone.follow(power[:, i : i + 1])
        torch.testing.assert_close(alone.variance[:, 0], together.variance[:, i], rtol=0, atol=0)
    assert float(together.variance[0, 1].mean()) > 20 * float(together.variance[0, 0].mean())


LINE = SIDE // 2 + 14  # a measured row outside the fully sampled region


def corrupt_line_noise(factor, seed=6):
    """Noise of two samples, scaled in one line."""
    noise = white(2, torch.Generator().manual_seed(seed))
    noise[..., LINE, :] *= factor
    return noise


def centred(values):
    """Shift DC to the centre: (frame, sample, y, x) or (..., y, 1) to (frame, sample, y, x)."""
    return torch.fft.fftshift(values, dim=(-2, -1)).expand(-1, -1, SIDE, SIDE)


@pytest.mark.parametrize("factor", [3, 30])
def test_noise_of_a_corrupt_line_does_not_raise_its_ring(operator, factor):
    level = level_of(operator, torch.tensor([1.0, 1.0]), corrupt_line_noise(factor)[:, 0])
    for _ in range(2):
        level.update(residual(operator, corrupt_line_noise(factor)))
    measured = operator.mask[:, :, 0].expand(2, 2, SIDE, SIDE)
    variance = centred(level.variance[:, :, 0])
    of_line, of_others = variance[..., LINE, :], variance.clone()
    of_others[..., LINE, :] = 1
    found = float(of_line[measured[..., LINE, :]].mean()) / factor**2
    assert 0.6 < found < 1.1  # biased low: chance is subtracted, and the assumed noise has weight
    assert float(of_others[measured].mean()) < 1.1
    assert float(of_others[measured].max()) < 1.6


def test_white_noise_has_no_inconsistent_lines(operator):
    for seed in range(5):
        level = level_of(operator, torch.tensor([1.0, 0.3]))
        noise = white(3, torch.Generator().manual_seed(seed))
        level.update(residual(operator, noise * torch.tensor([1.0, 0.3]).view(2, 1, 1, 1, 1)))
        assert float((level.excess > 1).float().mean()) < 0.01
        assert float(level.excess.max()) < 1.1


def test_residual_proportional_to_the_signal_is_no_excess(operator):
    """Errors of the coil maps scale with the signal; the same residual without signal is excess."""
    generator = torch.Generator().manual_seed(8)
    data, noise = 0 * white(1, generator)[:, 0], white(2, generator)
    wrong = 10 * white(2, generator)[..., LINE, :]
    noise[..., LINE, :] = wrong
    power = residual(operator, noise)
    alone = level_of(operator, torch.tensor([1.0, 1.0]), noise[:, 0])
    alone.follow(power)
    data[..., LINE, :] = 5 * wrong[:, 0]
    explained = level_of(operator, torch.tensor([1.0, 1.0]), data)
    explained.follow(power)
    assert float(centred(alone.excess)[..., LINE, :].min()) > 10
    assert float(centred(explained.excess)[..., LINE, :].max()) < 2


def test_corrupt_line_of_one_sample_does_not_change_the_others(operator):
    power = residual(operator, corrupt_line_noise(1))
    power[1, 1, 6] *= 400
    data = corrupt_line_noise(1)[:, 0]
    together = level_of(operator, torch.tensor([1.0, 1.0]), data)
    alone = [level_of(operator, torch.tensor([1.0, 1.0]), data) for _ in range(2)]
    for factor in (1, 2, 1):
        together.follow(factor * power)
        for i in range(2):
            alone[i].follow(factor * power[:, i : i + 1])
    assert float(together.excess[1, 1].max()) > 10
    for i in range(2):
        torch.testing.assert_close(alone[i].variance[:, 0], together.variance[:, i], rtol=0, atol=0)
