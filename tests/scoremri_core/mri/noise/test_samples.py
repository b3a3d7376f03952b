"""Noise estimates against the noise that was added, from one coil to 128."""

import logging

import numpy as np
import pytest

from scoremri_core.kspace import KSpace
from scoremri_core.mri.classical import cg_sense
from scoremri_core.mri.fourier import resize, to_kspace
from scoremri_core.mri.noise.covariance import (
    covariance_from_edges,
    covariance_from_scan,
    noise_sigma,
    sample_covariance,
)
from scoremri_core.recon.noise_model import raise_covariance, residual_covariance

SD = 0.005  # of each real component, for an image of 1
CALIBRATION = 20


def grid(n):
    return np.meshgrid(*[(np.arange(n) - n // 2) / (n / 2)] * 2, indexing="ij")


def ellipses(n, fill):
    """Sharp-edged ellipses that reach `fill` of the field of view."""
    y, x = grid(n)
    image = np.zeros((n, n))
    for cx, cy, a, b, value in [
        (0, 0, 1, 1, 1),
        (0.05, 0.1, 0.8, 0.75, -0.4),
        (-0.4, -0.3, 0.2, 0.25, 0.5),
        (0.45, 0.35, 0.15, 0.2, 0.7),
    ]:
        image[((x / fill - cx) / a) ** 2 + ((y / fill - cy) / b) ** 2 < 1] += value
    return image


def coil_maps(coils, n):
    """Coils on a circle around the object, sum |S|^2 = 1."""
    if coils == 1:
        return np.ones((1, n, n), complex)
    y, x = grid(n)
    angle = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    distance = (x - 1.2 * np.cos(angle)) ** 2 + (y - 1.2 * np.sin(angle)) ** 2
    maps = np.exp(-distance + 1j * (angle + 0.5 * x * np.cos(angle) + 0.4 * y))
    return maps / np.linalg.norm(maps, axis=0)


def white_noise(shape, seed=0):
    """Complex, E|n|^2 = 1."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((*shape, 2)) / np.sqrt(2)) @ [1, 1j]


def mask(kind, n):
    sampled = np.zeros((n, n), bool)
    centre = slice(n // 2 - CALIBRATION // 2, n // 2 + CALIBRATION // 2)
    if kind == "lines":
        sampled[n // 2 % 4 :: 4] = sampled[centre] = True
    else:
        sampled[:] = np.random.default_rng(5).uniform(size=(n, n)) < 0.25
        sampled[centre, centre] = True
    return sampled


def scan(coils, n, kind="lines", *, fill=0.8, root=None, rings=1, sd=SD):
    """k-space of `ellipses`, with noise of the covariance 2 sd^2 root root^H.

    `rings`: how much finer than its pixels the image is drawn, for edges that ring.
    """
    fine = rings * n
    kspace = resize(to_kspace(ellipses(fine, fill) * coil_maps(coils, fine)), (n, n)) / rings
    noise = np.sqrt(2) * sd * white_noise((coils, n * n))
    noise = noise if root is None else root @ noise
    return ((kspace + noise.reshape(coils, n, n)) * mask(kind, n)).astype(np.complex64)


def ratio(kspace, sd=SD):
    return noise_sigma(covariance_from_edges(kspace)) / sd


def whitened(truth, estimate):
    """Eigenvalues of the true covariance, whitened with an estimate."""
    inverse = np.linalg.inv(np.linalg.cholesky(estimate))
    return np.linalg.eigvalsh(inverse @ truth @ inverse.conj().T)


@pytest.mark.parametrize("kind", ["lines", "points"])
@pytest.mark.parametrize(("coils", "n"), [(4, 64), (8, 48), (32, 64), (128, 64)])
def test_noise_is_found_for_any_number_of_coils(coils, n, kind):
    assert ratio(scan(coils, n, kind)) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("coils", [1, 64])
@pytest.mark.parametrize("fill", [0.3, 0.95])
@pytest.mark.parametrize("sd", [0.0005, 0.05])
def test_noise_is_found_beside_small_and_large_objects(coils, fill, sd):
    assert ratio(scan(coils, 64, fill=fill, sd=sd), sd) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("coils", [1, 16])
def test_ringing_is_not_taken_for_noise(coils):
    assert ratio(scan(coils, 48, rings=3, sd=0.002), 0.002) == pytest.approx(1, abs=0.2)


def test_noise_is_found_in_one_coil_at_high_signal():
    """Sharp edges are a hundred times the noise in the samples farthest from DC."""
    # the few pixels of one calibration region beside the object know it to a fifth
    assert 0.65 < ratio(scan(1, 64, "points", sd=0.001), 0.001) < 1.5


@pytest.mark.parametrize("coils", [8, 32])
def test_correlated_noise_is_white_after_whitening(coils):
    rng = np.random.default_rng(3)
    mixing = rng.standard_normal((coils, coils, 2)) @ [1, 1j] / np.sqrt(2 * coils)
    root = np.eye(coils) + 0.4 * mixing
    eigenvalues = whitened(
        2 * SD**2 * root @ root.conj().T, covariance_from_edges(scan(coils, 96, root=root))
    )
    assert eigenvalues.min() > 0.5
    assert eigenvalues.max() < 2


@pytest.mark.parametrize("factor", [0, 20])
def test_a_dead_and_a_loud_coil_do_not_disturb_the_others(factor):
    root = np.eye(16)
    root[3, 3] = factor
    kspace = scan(16, 64, root=root)
    if not factor:
        kspace[3] = 0
    sd = np.sqrt(np.diag(covariance_from_edges(kspace)).real / 2) / SD
    others = np.delete(sd, 3)
    assert sd[3] == pytest.approx(factor, abs=0.1 * factor + 1e-3)
    np.testing.assert_allclose(others, 1, atol=0.25)


def test_a_mask_says_what_was_measured():
    """Zeros that were measured count, and values beside the mask do not."""
    sampled = mask("lines", 64)
    kspace = scan(4, 64)
    stray = np.where(sampled, kspace, 1e-30)
    expected = covariance_from_edges(kspace)
    np.testing.assert_allclose(covariance_from_edges(stray, mask=sampled), expected)
    empty = np.zeros_like(kspace)
    assert noise_sigma(covariance_from_edges(empty, mask=sampled)) < 1e-6


def test_the_true_noise_is_not_called_wrong(caplog):
    with caplog.at_level(logging.WARNING):
        KSpace.of(scan(128, 64), noise_covariance=2 * SD**2 * np.eye(128))
    assert not caplog.records


@pytest.mark.parametrize("coils", [8, 64])
@pytest.mark.parametrize("per_coil", [0.5, 1, 1.2, 2, 8])
def test_few_samples_give_a_well_conditioned_covariance(coils, per_coil):
    found = sample_covariance(white_noise((coils, int(coils * per_coil))))
    eigenvalues = whitened(np.eye(coils), found)
    # a plain sample covariance: from 0.55 to 2.4 with 8 samples per coil, without bound with 1
    least, most = (0.65, 1.65) if per_coil > 2 else (0.4, 4)
    assert eigenvalues.min() > least
    assert eigenvalues.max() < most


def test_many_samples_give_the_sample_covariance():
    samples = white_noise((3, 1000))
    plain = samples @ samples.conj().T / 1000
    np.testing.assert_allclose(sample_covariance(samples), plain)
    few = samples[:, :299]
    np.testing.assert_allclose(sample_covariance(few), np.eye(3), atol=3 / np.sqrt(299))


def test_coils_without_noise_stay_without():
    samples = white_noise((4, 20))
    samples[2] = 0
    found = sample_covariance(samples)
    assert not found[2].any()
    assert not found[:, 2].any()
    assert np.linalg.eigvalsh(found)[1] > 0.2


def test_a_short_noise_scan_whitens_all_directions():
    eigenvalues = whitened(np.eye(64), covariance_from_scan(white_noise((64, 128))))
    assert 0.5 < eigenvalues.min() < eigenvalues.max() < 2


def psnr(found, truth):
    return 20 * np.log10(truth.max() / np.sqrt(np.mean(np.abs(np.abs(found) - truth) ** 2)))


def test_the_classical_image_of_many_coils_forgives_an_error_of_the_noise():
    """A tenth of the noise of 64 coils is more than what an image has at high frequencies."""
    n, sd = 64, 0.05
    image = ellipses(n, 0.8)
    found = [
        psnr(
            cg_sense(scan(coils, n, sd=sd), coil_maps(coils, n), 2.2 * sd**2 * np.eye(coils)), image
        )
        for coils in (8, 64)
    ]
    assert found[1] > found[0] - 0.5


def test_chance_does_not_raise_the_noise_of_many_coils():
    kspace, maps = scan(64, 64, sd=0.05), coil_maps(64, 64)
    assumed = 2 * 0.05**2 * np.eye(64, dtype=complex)
    assert raise_covariance(assumed, residual_covariance(kspace, maps[None])) is assumed
