"""`reconstruct` on simulated scans of known truth."""

import numpy as np
import pytest
import sigpy.mri
import torch
from scipy.sparse.linalg import LinearOperator, cg

from scoremri_core import load_prior, reconstruct
from scoremri_core.errors import InputError
from scoremri_core.mri.fourier import to_image, to_kspace
from scoremri_core.priors.gaussian import GaussianPrior
from scoremri_core.samplers import SAMPLERS
from scoremri_core.samplers.registry import REGISTRY
from scoremri_core.score.metrics import psnr
from scoremri_core.simulation.masks import make_mask

NY, NX, COILS, SIGMA = 48, 44, 4, 0.02
COVARIANCE = 2 * SIGMA**2 * np.eye(COILS)


def head(ny=NY, nx=NX):
    y, x = np.mgrid[-1 : 1 : ny * 1j, -1 : 1 : nx * 1j]
    magnitude = (y**2 + x**2 < 0.7) * (0.6 + 0.3 * np.cos(5 * x) * np.cos(4 * y))
    return magnitude * np.exp(1j * (x + 0.5 * y))


def coil_maps(ny=NY, nx=NX):
    maps = sigpy.mri.birdcage_maps((COILS, ny, nx)).astype(np.complex64)
    return maps / np.sqrt((np.abs(maps) ** 2).sum(0))


def scan(acceleration=3, seed=0, truth=None):
    """Undersampled k-space (coil, y, x) with 12 calibration lines."""
    truth = head() if truth is None else truth
    rng = np.random.default_rng(seed)
    noise = SIGMA * (rng.standard_normal((2, COILS, NY, NX)) * [[[[1]]], [[[1j]]]]).sum(0)
    lines = make_mask("equispaced", (NY,), acceleration, 12).sampled
    kspace = (to_kspace(coil_maps() * truth) + noise) * lines[:, None]
    return kspace.astype(np.complex64)


@pytest.fixture(scope="module")
def prior():
    """Gaussian prior of smooth images, for speed."""
    ky, kx = np.mgrid[:NY, :NX]
    k2 = (ky - NY // 2) ** 2 + (kx - NX // 2) ** 2
    return GaussianPrior(torch.from_numpy(400 / (1 + k2) ** 1.8).float())


def test_shapes_units_and_info(prior):
    result = reconstruct(
        scan(), prior=prior, maps=coil_maps(), noise_covariance=COVARIANCE, samples=3, steps=5
    )
    assert result.mean.shape == result.std.shape == (1, NY, NX)
    assert result.samples.shape == (1, 3, NY, NX)
    assert result.maps.shape == (1, 1, COILS, NY, NX)
    np.testing.assert_allclose(result.mean, result.samples.mean(1), atol=1e-6)
    effective = result.info.effective_samples  # of 3 balanced samples
    assert effective == pytest.approx(4.2)
    np.testing.assert_allclose(
        result.std[0],
        np.sqrt((np.abs(result.samples[0] - result.mean[0]) ** 2).sum(0) / (3 - 3 / effective)),
        rtol=1e-4,
        atol=1e-6,
    )
    info = result.info
    assert (info.sampler, info.samples, info.steps, info.evaluations) == ("posterior", 3, 5, 5)
    assert info.prior == "GaussianPrior"
    assert info.sigma_n[0] == pytest.approx(SIGMA)
    assert info.reason is None
    assert psnr(result.mean[0], head()) > 23


@pytest.mark.parametrize("unit", [1e-6, 1e4])
def test_result_scales_with_kspace(prior, unit):
    options = {"prior": prior, "maps": coil_maps(), "samples": 2, "steps": 4}
    one = reconstruct(scan(), noise_covariance=COVARIANCE, **options)
    other = reconstruct(unit * scan(), noise_covariance=unit**2 * COVARIANCE, **options)
    np.testing.assert_allclose(other.samples / unit, one.samples, atol=2e-3)
    assert other.info.scale[0] == pytest.approx(unit * one.info.scale[0], rel=1e-4)


def test_correlated_noise_is_whitened(prior):
    """Mixing of the coils and their known covariance does not change the posterior."""
    rng = np.random.default_rng(3)
    mixing = np.eye(COILS) + 0.4 * (
        rng.standard_normal((COILS, COILS)) + 1j * rng.standard_normal((COILS, COILS))
    )
    options = {"prior": prior, "samples": 16, "steps": 6, "scale": 1.0}
    plain = reconstruct(scan(), maps=coil_maps(), noise_covariance=COVARIANCE, **options)
    mixed = reconstruct(
        np.einsum("cd,dyx->cyx", mixing, scan()),
        maps=np.einsum("cd,dyx->cyx", mixing, coil_maps()),
        noise_covariance=mixing @ COVARIANCE @ mixing.conj().T,
        **options,
    )
    assert psnr(mixed.mean[0], head()) == pytest.approx(psnr(plain.mean[0], head()), abs=1)
    assert np.mean(mixed.std) == pytest.approx(np.mean(plain.std), rel=0.1)


def test_samples_do_not_depend_on_the_batch(prior):
    kspace = np.stack([scan(seed=1), scan(acceleration=4, seed=2), scan(seed=3)])
    options = {"prior": prior, "maps": coil_maps(), "noise_covariance": COVARIANCE, "steps": 5}
    together = reconstruct(kspace, samples=4, **options)
    for i in range(3):
        single = reconstruct(kspace[i], samples=2, **options)
        np.testing.assert_allclose(together.samples[i, :2], single.samples[0], atol=1e-6)


def test_samples_of_the_default_prior_do_not_depend_on_the_batch():
    prior = load_prior("default")
    kspace = np.stack([scan(seed=1), scan(acceleration=4, seed=2)])
    options = {"prior": prior, "maps": coil_maps(), "noise_covariance": COVARIANCE, "steps": 4}
    together = reconstruct(kspace, samples=5, **options)
    single = reconstruct(kspace[1], samples=1, **options)
    np.testing.assert_allclose(together.samples[1, :1], single.samples[0], atol=1e-6)


def test_samples_depend_on_the_seed(prior):
    options = {"prior": prior, "maps": coil_maps(), "noise_covariance": COVARIANCE, "steps": 3}
    one, again, other = (reconstruct(scan(), seed=s, **options) for s in (0, np.int64(0), 1))
    np.testing.assert_array_equal(one.samples, again.samples)
    assert np.abs(one.samples - other.samples).max() > 1e-3


def test_each_slice_of_a_stack_has_its_seed(prior):
    options = {"prior": prior, "maps": coil_maps(), "noise_covariance": COVARIANCE, "steps": 3}
    stack = np.stack([scan(), scan()])
    together = reconstruct(stack, seed=[3, 8], **options)
    single = reconstruct(scan(), seed=8, **options)
    np.testing.assert_allclose(together.samples[1], single.samples[0], atol=1e-6)
    assert np.abs(together.samples[0] - together.samples[1]).max() > 1e-3
    with pytest.raises(InputError, match="seed holds 3 numbers: expected 1 or 2"):
        reconstruct(stack, seed=[1, 2, 3], **options)


def test_default_prior_outperforms_the_classical_image():
    options = {"maps": coil_maps(), "noise_covariance": COVARIANCE}
    classical = reconstruct(scan(4), sampler="none", **options)
    sampled = reconstruct(scan(4), samples=4, **options)
    assert classical.samples.shape == (1, 0, NY, NX)
    assert np.isnan(classical.std).all()
    assert psnr(sampled.mean[0], head()) > psnr(classical.mean[0], head()) + 1


def test_only_the_slice_that_cannot_be_sampled_falls_back(prior):
    kspace = np.stack([scan(seed=1), scan(seed=2)])
    kspace[0, :, NY // 2 - 6 : NY // 2 + 6] = np.nan
    result = reconstruct(kspace, prior=prior, noise_covariance=COVARIANCE, samples=2, steps=3)
    assert "no calibration lines" in result.info.fallback[0]
    assert result.info.fallback[1] is None
    assert np.isfinite(result.mean).all()
    assert np.isnan(result.std[0]).all()
    assert np.isfinite(result.std[1]).all()
    assert np.isfinite(result.samples[1]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, complex(0, -np.inf)])
@pytest.mark.parametrize("place", [(20, 5), (NY // 2, NX // 2), (NY // 2 + 3, NX // 2 - 4)])
def test_sample_that_is_not_finite_is_ignored(prior, bad, place, caplog):
    """In one coil: in an outer line, at DC and in a calibration line."""
    options = {"prior": prior, "noise_covariance": COVARIANCE, "samples": 4, "steps": 5}
    kspace = scan(2)
    whole = reconstruct(kspace, **options)
    kspace[1, place[0], place[1]] = bad
    result = reconstruct(kspace, **options)
    assert result.info.reason is None
    assert psnr(result.mean[0], head()) > psnr(whole.mean[0], head()) - 0.5
    assert f"1 of {NY * NX} k-space samples are not finite" in caplog.text


def test_no_calibration_lines_falls_back(prior):
    kspace = scan()
    kspace[:, NY // 2 - 6 : NY // 2 + 6] = 0
    result = reconstruct(kspace, prior=prior)
    assert "calibration" in result.info.reason
    assert np.isfinite(result.mean).all()


def test_slice_without_calibration_lines_does_not_change_the_others(prior):
    kspace = np.stack([scan(seed=1), scan(seed=2)])
    kspace[0, :, NY // 2 - 6 : NY // 2 + 6] = 0
    options = {"prior": prior, "noise_covariance": COVARIANCE, "samples": 2, "steps": 3}
    result = reconstruct(kspace, **options)
    single = reconstruct(kspace[1], **options)
    assert "calibration" in result.info.fallback[0]
    assert result.info.fallback[1] is None
    np.testing.assert_allclose(result.mean[1], single.mean[0], atol=1e-4)


def test_out_of_memory_falls_back():
    class OutOfMemory:
        def denoise(self, x, sigma):
            raise MemoryError

    result = reconstruct(scan(), prior=OutOfMemory(), maps=coil_maps(), samples=2)
    assert result.info.reason.startswith("out of memory")
    assert np.isfinite(result.mean).all()


def test_second_set_of_zeros_does_not_change_the_image(prior):
    maps = np.stack([coil_maps(), np.zeros_like(coil_maps())])
    options = {"prior": prior, "noise_covariance": COVARIANCE, "samples": 8, "scale": 1.0}
    two = reconstruct(scan(), maps=maps, **options)
    assert two.maps.shape == (1, 2, COILS, NY, NX)
    assert psnr(two.mean[0], head()) > 23


def averaged(counts, seed=0):
    """K-space with `counts` averages of each line, R = 3, 12 calibration lines."""
    rng = np.random.default_rng(seed)
    noise = SIGMA * (rng.standard_normal((2, COILS, NY, NX)) * [[[[1]]], [[[1j]]]]).sum(0)
    lines = make_mask("equispaced", (NY,), 3, 12).sampled
    kspace = to_kspace(coil_maps() * head()) + noise / np.sqrt(counts)[:, None]
    return (kspace * lines[:, None]).astype(np.complex64)


def test_mean_with_unequal_averages_is_the_posterior_mean(prior):
    """Compared with the posterior mean of a Gaussian prior, by conjugate gradients."""
    counts = np.where(np.arange(NY) % 2, 16, 1)
    kspace, maps = averaged(counts), coil_maps()
    mask = (kspace != 0).any(0)
    options = {"prior": prior, "maps": maps, "noise_covariance": COVARIANCE, "scale": 1.0}
    options |= {"samples": 8, "steps": 10, "adapt_noise": False}
    result = reconstruct(kspace, averages=counts, **options)
    assert result.info.sigma_thermal[0] == pytest.approx(SIGMA)

    weight = mask * counts[:, None] / SIGMA**2
    spectrum = prior.spectrum.numpy()

    def normal(x):
        image = x.reshape(NY, NX)
        seen = np.sum(maps.conj() * to_image(weight * to_kspace(maps * image)), axis=0)
        return (seen + to_image(to_kspace(image) / spectrum)).ravel()

    b = np.sum(maps.conj() * to_image(weight * kspace), axis=0).ravel()
    matrix = LinearOperator((NY * NX,) * 2, matvec=normal, dtype=np.complex128)
    exact = cg(matrix, b, rtol=1e-6, maxiter=5000)[0].reshape(NY, NX)
    error = np.abs(result.mean[0] - exact).mean() / result.std.mean()
    assert error < 0.1
    unweighted = reconstruct(kspace, **options)
    assert np.abs(unweighted.mean[0] - exact).mean() / result.std.mean() > 2 * error


def test_equal_averages_only_scale_the_noise(prior):
    options = {"prior": prior, "maps": coil_maps(), "samples": 2, "steps": 3}
    four = reconstruct(
        scan(), averages=np.full((NY, NX), 4), noise_covariance=4 * COVARIANCE, **options
    )
    once = reconstruct(scan(), noise_covariance=COVARIANCE, **options)
    np.testing.assert_array_equal(four.samples, once.samples)
    assert four.info.sigma_n == once.info.sigma_n


def test_resized_crops_the_field_of_view(prior):
    result = reconstruct(
        scan(), prior=prior, maps=coil_maps(), noise_covariance=COVARIANCE, samples=2, steps=3
    )
    cropped = result.resized((NY // 2, NX), (0.5, 1.0))
    np.testing.assert_allclose(cropped.mean, result.mean[:, NY // 4 : NY // 4 + NY // 2])
    np.testing.assert_allclose(cropped.std, result.std[:, NY // 4 : NY // 4 + NY // 2], rtol=1e-5)
    finer = result.resized((2 * NY, 2 * NX))
    np.testing.assert_allclose(finer.mean[:, ::2, ::2], result.mean, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kspace": np.ones((8, 8))}, r"kspace has shape \(8, 8\)"),
        ({"sampler": "magic"}, r"expected one of posterior, langevin, .*none"),
        ({"samples": 0}, "samples is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"maps": 3}, "maps is 3"),
        ({"maps": np.ones((2, 8, 8))}, r"maps has shape \(2, 8, 8\)"),
        ({"noise_covariance": np.eye(2)}, "noise_covariance has shape"),
        ({"noise_covariance": -np.eye(COILS)}, "not positive semidefinite"),
        ({"averages": np.ones(3)}, r"averages has shape \(3,\): expected \(y,\), \(y, x\)"),
        ({"averages": np.zeros(NY)}, "averages: expected a number above 0"),
        ({"averages": np.full(NY, np.nan)}, "averages: expected a number above 0"),
        ({"averages": np.full(NY, "1")}, "averages is <U1: expected numbers"),
        ({"calibration": np.ones((2, 8, 8))}, "calibration has shape"),
        ({"device": "abacus"}, "device 'abacus'"),
        ({"prior": "no-such-prior"}, "no-such-prior"),
        ({"warp": 9}, "sampler option 'warp'"),
    ],
)
def test_error_names_the_argument(changes, message):
    arguments = {"kspace": scan(), "maps": coil_maps(), **changes}
    with pytest.raises(InputError, match=message):
        reconstruct(arguments.pop("kspace"), **arguments)


@pytest.mark.cuda
def test_gpu_agrees_with_cpu(prior):
    options = {"prior": prior, "maps": coil_maps(), "noise_covariance": COVARIANCE, "samples": 32}
    cpu = reconstruct(scan(), device="cpu", **options)
    gpu = reconstruct(scan(), device="cuda", **options)
    assert psnr(gpu.mean[0], cpu.mean[0]) > 30


def test_samplers_are_those_of_the_registry():
    assert set(SAMPLERS) == {*REGISTRY, "none"}


def test_batch_is_halved_when_out_of_memory(prior):
    options = {"prior": prior, "maps": coil_maps(), "noise_covariance": COVARIANCE, "steps": 2}
    stack = np.stack([scan()] * 5)
    expected = reconstruct(stack, samples=2, **options)
    sizes = []

    class SmallMemory(type(prior)):
        def denoise(self, x, sigma):
            sizes.append(len(x))
            if len(x) > 4:
                raise MemoryError
            return super().denoise(x, sigma)

    small = SmallMemory.__new__(SmallMemory)
    small.__dict__ = prior.__dict__
    result = reconstruct(stack, samples=2, **{**options, "prior": small})
    assert result.info.reason is None
    np.testing.assert_allclose(result.samples, expected.samples, atol=1e-6)
    assert max(sizes) == 10
    assert set(sizes[1:]) <= {6, 4, 2}


def test_a_read_only_mask_is_taken_without_a_warning():
    kspace = scan()
    mask = np.broadcast_to(np.abs(kspace[0, :, :1]) > 0, (NY, NX))  # not writable
    result = reconstruct(kspace, mask=mask, sampler="none")
    np.testing.assert_array_equal(result.mean, reconstruct(kspace, sampler="none").mean)
