"""`reconstruct_volume` against the truth, and against `reconstruct` of its positions."""

import numpy as np
import pytest
import sigpy.mri
import torch

from scoremri_core import PosteriorOptions, reconstruct
from scoremri_core.errors import InputError
from scoremri_core.kspace import KSpace
from scoremri_core.mri.fourier import resample, to_image, to_kspace
from scoremri_core.priors.gaussian import GaussianPrior
from scoremri_core.recon import reconstruction, volume
from scoremri_core.recon.reconstruction import reconstruct_volume
from scoremri_core.samplers.random_numbers import derived_seed
from scoremri_core.score.metrics import psnr
from scoremri_core.simulation.masks import make_mask

NZ, NY, NX, COILS, SIGMA = 18, 24, 22, 4, 0.01
COVARIANCE = 2 * SIGMA**2 * np.eye(COILS)
EMPTY = 3  # readout positions without signal at either end


def head(nz=NZ, ny=NY, nx=NX):
    """An asymmetric ellipsoid with smooth phase, zero at the outermost readout positions."""
    z, y, x = np.mgrid[-1 : 1 : nz * 1j, -1 : 1 : ny * 1j, -1 : 1 : nx * 1j]
    inside = z**2 + (y - 0.1) ** 2 + 1.4 * x**2 < 0.75
    magnitude = inside * (0.8 + 0.3 * z + 0.2 * y * x)
    magnitude[..., :EMPTY] = magnitude[..., nx - EMPTY :] = 0
    return magnitude * np.exp(1j * (x + 0.5 * y + 0.3 * z))


def coil_maps(nz=NZ, ny=NY, nx=NX):
    maps = sigpy.mri.birdcage_maps((COILS, nz, ny, nx))
    return maps / np.sqrt((np.abs(maps) ** 2).sum(0))


def scan(lines=None, shape=(NZ, NY, NX), sigma=SIGMA, seed=0):
    """K-space (coil, z, y, x) of the lines (z, y)."""
    rng = np.random.default_rng(seed)
    kspace = to_kspace(coil_maps(*shape) * head(*shape), (-3, -2, -1))
    noise = rng.standard_normal((2, *kspace.shape))
    kspace = kspace + sigma * (noise[0] + 1j * noise[1])
    return (kspace if lines is None else kspace * lines[..., None]).astype(np.complex64)


def undersampled():
    return make_mask("poisson", (NZ, NY), 2, 12, seed=1).sampled


def prior(a, b):
    ka, kb = np.mgrid[:a, :b]
    k2 = (ka - a // 2) ** 2 + (kb - b // 2) ** 2
    return GaussianPrior(torch.from_numpy(60 / (1 + k2) ** 1.5).float())


OPTIONS = {"prior": prior(NZ, NY), "noise_covariance": COVARIANCE, "samples": 2, "steps": 3}


@pytest.mark.parametrize("shape", [(18, 24, 22), (17, 23, 21)])
@pytest.mark.parametrize("complete", ["partitions", "readouts"])
def test_image_has_the_orientation_of_the_object(shape, complete):
    nz, ny, nx = shape
    lines = np.ones((nz, ny), bool)
    if complete == "readouts":
        lines[0, 0] = False  # only the readout is fully sampled
    plane = prior(nz, ny) if complete == "readouts" else prior(ny, nx)
    options = {**OPTIONS, "prior": plane}
    result = reconstruct_volume(scan(lines, shape), **options)
    assert result.info.reason is None
    assert result.mean.shape == result.std.shape == shape
    assert result.samples.shape == (nz, 2, ny, nx)
    truth = np.abs(head(*shape))
    assert psnr(np.abs(result.mean), truth) > 28
    for axis in range(3):
        for other in (np.flip(truth, axis), np.roll(truth, 1, axis), np.roll(truth, -1, axis)):
            assert psnr(np.abs(result.mean), truth) > psnr(np.abs(result.mean), other) + 3
    np.testing.assert_allclose(result.mean, result.samples.mean(1), atol=1e-6)


def test_position_equals_its_separate_reconstruction():
    """With the scale, noise and maps of the volume, and its seed."""
    kspace = scan(undersampled())
    result = reconstruct_volume(kspace, seed=3, **OPTIONS)
    for x in (NX // 2, NX // 2 + 3):
        position = to_image(kspace, (-1,))[..., x]
        seed = derived_seed(3, x)
        single = reconstruct(position, scale=result.info.scale[0], seed=seed, **OPTIONS)
        samples = result.samples[..., x].swapaxes(0, 1)
        np.testing.assert_allclose(np.abs(samples), np.abs(single.samples[0]), atol=1e-4)
        np.testing.assert_allclose(result.std[..., x], single.std[0], atol=1e-4)


def test_errors_of_neighbouring_positions_are_uncorrelated():
    kspace = scan(undersampled())
    result = reconstruct_volume(kspace, **OPTIONS)
    errors = result.samples[:, 0, :, 5:-5] - result.mean[..., 5:-5]
    one, other = errors[..., :-1].ravel(), errors[..., 1:].ravel()
    correlation = np.abs(np.vdot(one, other)) / np.linalg.norm(one) / np.linalg.norm(other)
    assert correlation < 0.1


def test_phase_is_continuous_across_positions():
    """Required for interpolation."""
    result = reconstruct_volume(scan(undersampled()), **{**OPTIONS, "sampler": "none"})
    shape = NZ, NY, 2 * NX
    finer = np.abs(result.resized(shape, (1, 1, 1)).mean)
    truth = np.abs(resample(head(), (2 * NX,), (1,), (-1,)))
    assert psnr(finer, truth) > 22
    np.testing.assert_allclose(finer[..., ::2], np.abs(result.mean), atol=1e-5)


def test_progress_is_logged(monkeypatch, caplog):
    monkeypatch.setattr(reconstruction, "SECONDS_PER_LOG", 0)
    with caplog.at_level("INFO"):
        reconstruct_volume(scan(undersampled()), **{**OPTIONS, "sampler": "none"})
    logged = [message.split(",")[0] for message in caplog.messages if "slices done" in message]
    blocks = range(reconstruction.BLOCK, NX, reconstruction.BLOCK)
    assert logged == [f"{done} of {NX} slices done" for done in blocks]


@pytest.mark.parametrize("sigma", [SIGMA, 0])
def test_positions_without_signal_are_sampled_without_warnings(sigma, caplog):
    """The mean is zero within the posterior standard deviation."""
    result = reconstruct_volume(scan(undersampled(), sigma=sigma), **OPTIONS)
    assert result.info.reason is None
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert np.isfinite(result.std).all()
    empty, std = (part[..., [0, -1]] for part in (np.abs(result.mean), result.std))
    assert np.mean(empty**2) < 2 * np.mean(std**2) < 0.3**2


def test_scale_is_close_to_that_of_the_central_position():
    kspace = scan(undersampled())
    result = reconstruct_volume(kspace, **OPTIONS)
    middle = reconstruct(to_image(kspace, (-1,))[..., NX // 2], **OPTIONS)
    assert result.info.scale[0] == pytest.approx(middle.info.scale[0], rel=0.15)
    assert len(result.info.sigma_n) == 1


def test_noise_is_estimated_from_the_quietest_positions():
    options = {**OPTIONS, "noise_covariance": None}
    result = reconstruct_volume(scan(undersampled()), **options)
    assert result.info.sigma_n[0] == pytest.approx(SIGMA, rel=0.2)


@pytest.mark.parametrize("complete", ["partitions", "readouts"])
def test_averages_of_positions_predict_their_noise(complete):
    """Samples with n averages have 1/n of the noise variance."""
    lines = np.ones((NZ, NY), bool)
    lines[0, 0] = complete == "partitions"
    averages = np.random.default_rng(1).choice([1.0, 4.0], (NZ, NY, NX))
    noises = []
    for seed in range(12):
        white = np.random.default_rng(seed).standard_normal((2, 20, NZ, NY, NX)) / averages**0.5
        noise = (white[0] + 1j * white[1]).astype(np.complex64) * lines[..., None]
        positions = volume.split(
            KSpace.volume(noise, averages=averages, noise_covariance=2 * np.eye(20))
        )
        noises.append([slice_.array for slice_ in positions.slices])
    first = positions.slices[0]
    assert positions.axis == (volume.PARTITION if complete == "partitions" else volume.READOUT)
    assert first.mask.mean() > 0.99
    power = np.mean(np.abs(noises) ** 2, axis=(0, 1, 2))
    expected = first.noise_covariance[0, 0].real * first.unit**2 / first.averages[first.mask]
    np.testing.assert_allclose(power[first.mask] / expected, 1, atol=0.15)


def test_equal_averages_only_scale_the_noise():
    options = {**OPTIONS, "samples": 1}
    once = reconstruct_volume(scan(undersampled()), **options)
    four = reconstruct_volume(
        scan(undersampled()),
        averages=np.full((NZ, NY, NX), 4),
        **options | {"noise_covariance": 4 * COVARIANCE},
    )
    np.testing.assert_allclose(four.mean, once.mean, atol=1e-4)
    assert four.info.sigma_n == pytest.approx(once.info.sigma_n, rel=1e-3)
    with pytest.raises(InputError, match=r"averages are int64 of shape \(3,\)"):
        reconstruct_volume(scan(undersampled()), averages=[1, 2, 3], **OPTIONS)


def test_separate_calibration_scan():
    lattice = make_mask("equispaced", (NZ, NY), 4).sampled
    block = make_mask("equispaced", (NZ, NY), 4, 12).calibration
    options = {**OPTIONS, "sampler": "none"}
    with_it = reconstruct_volume(scan(lattice), calibration=scan(block, seed=5), **options)
    without = reconstruct_volume(scan(lattice), **options)
    assert with_it.info.reason is None
    assert "no calibration lines" in without.info.reason
    truth = np.abs(head())
    assert psnr(np.abs(with_it.mean), truth) > psnr(np.abs(without.mean), truth) + 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda k: k * (np.arange(NY) % 2)[:, None], "no calibration lines"),
        (lambda k: 0 * k, "no measured samples"),
    ],
)
def test_volume_that_cannot_be_sampled_is_classical(change, reason, caplog):
    result = reconstruct_volume(change(scan()).astype(np.complex64), **OPTIONS)
    assert reason in result.info.reason
    assert len([m for m in caplog.messages if "classical image" in m]) == 1
    assert np.isfinite(result.mean).all()
    assert np.isnan(result.samples).all()
    assert np.isnan(result.std).all()


def test_nonfinite_readouts_are_unsampled(caplog):
    whole = reconstruct_volume(scan(undersampled()), **OPTIONS)
    kspace = scan(undersampled())
    kspace[1, NZ // 2 + 1, NY // 2 - 2, 5] = np.nan
    result = reconstruct_volume(kspace, **OPTIONS)
    assert result.info.reason is None
    assert f"{NX} of {NZ * NY * NX} k-space samples are not finite" in caplog.text
    truth = np.abs(head())
    assert psnr(np.abs(result.mean), truth) > psnr(np.abs(whole.mean), truth) - 1


def test_sampler_none_gives_classical_images():
    result = reconstruct_volume(scan(undersampled()), **{**OPTIONS, "sampler": "none"})
    assert result.info.reason is None
    assert psnr(np.abs(result.mean), np.abs(head())) > 22


def test_out_of_memory_falls_back():
    class OutOfMemory:
        def denoise(self, x, sigma):
            raise MemoryError

    result = reconstruct_volume(scan(undersampled()), **{**OPTIONS, "prior": OutOfMemory()})
    assert result.info.reason.startswith("out of memory")
    assert np.isfinite(result.mean).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kspace": np.ones((4, 8, 8))}, r"expected \(coil, z, y, x\)"),
        ({"calibration": np.ones((4, 8, 8, 8))}, "expected that of kspace"),
        ({"maps": 3}, "expected 1 or 2 sets"),
        ({"device": "abacus"}, "device 'abacus'"),
    ],
)
def test_error_names_the_argument(changes, message):
    arguments = {"kspace": scan(), **OPTIONS, **changes}
    with pytest.raises(InputError, match=message):
        reconstruct_volume(arguments.pop("kspace"), **arguments)


def test_mask_tensors_and_options_as_in_reconstruct():
    kspace, options = scan(undersampled()), {**OPTIONS, "samples": 1}
    expected = reconstruct_volume(kspace, **options)
    full = kspace + np.complex64(0.01) * (kspace == 0)
    for mask in (undersampled(), np.broadcast_to(undersampled()[..., None], kspace.shape[1:])):
        found = reconstruct_volume(full, mask=mask, **options)
        np.testing.assert_array_equal(found.mean, expected.mean)
    tensors = reconstruct_volume(torch.from_numpy(kspace), **options)
    assert isinstance(tensors.mean, torch.Tensor)
    np.testing.assert_array_equal(tensors.mean.numpy(), expected.mean)
    steps = options.pop("steps")
    as_object = reconstruct_volume(kspace, sampler=PosteriorOptions(steps=steps), **options)
    np.testing.assert_array_equal(as_object.mean, expected.mean)


def test_given_maps_are_used():
    kspace, options = scan(undersampled()), {**OPTIONS, "sampler": "none"}
    truth = np.abs(head())
    given = reconstruct_volume(kspace, maps=coil_maps(), **options)
    estimated = reconstruct_volume(kspace, **options)
    assert psnr(given.magnitude, truth) == pytest.approx(psnr(estimated.magnitude, truth), abs=1)
    swapped = reconstruct_volume(kspace, maps=coil_maps()[::-1].copy(), **options)
    assert psnr(swapped.magnitude, truth) < psnr(given.magnitude, truth) - 5
    with pytest.raises(InputError, match="maps has shape"):
        reconstruct_volume(kspace, maps=coil_maps()[:, :4], **options)


def test_noise_covariance_is_checked_with_a_scale(caplog):
    kspace = to_image(scan(), (-1,))[..., NX // 2]
    reconstruct(kspace, noise_covariance=100 * COVARIANCE, scale=1.0, sampler="none")
    assert "noise_covariance has sd" in caplog.text
