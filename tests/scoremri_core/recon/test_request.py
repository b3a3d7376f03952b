"""Arguments of `reconstruct`: types, errors and warnings."""

import numpy as np
import pytest
import torch
from scipy import stats

from scoremri_core import LangevinOptions, PosteriorOptions, reconstruct
from scoremri_core.errors import InputError
from scoremri_core.mri.g_factor import g_factor
from scoremri_core.priors.gaussian import GaussianPrior

SHAPE = (4, 32, 32)


@pytest.fixture(scope="module")
def prior():
    return GaussianPrior(torch.full(SHAPE[1:], 0.3))


@pytest.fixture(scope="module")
def kspace():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-16:16, -16:16]
    signal = 50 / (1 + y**2 + x**2) * np.exp(1j * np.arange(4))[:, None, None]
    noise = rng.standard_normal((2, *SHAPE))
    k = (signal + 0.05 * (noise[0] + 1j * noise[1])).astype(np.complex64)
    k[:, [1, 4, 5, 27, 30]] = 0
    return k


@pytest.fixture
def run(prior):
    def call(kspace, **options):
        return reconstruct(kspace, prior=prior, **{"samples": 2, "steps": 3, **options})

    return call


@pytest.mark.parametrize("unit", [2.0**-100, 2.0**-50, 2.0**50, 2.0**100])
def test_units_whose_squares_are_out_of_the_range_of_float32(run, kspace, unit):
    one = run(kspace)
    other = run(kspace * np.float32(unit))
    assert other.info.reason is None
    np.testing.assert_allclose(other.mean / unit, one.mean, rtol=1e-5)
    np.testing.assert_allclose(other.std / unit, one.std, rtol=1e-5)
    for name in ("sigma_n", "sigma_thermal", "scale"):
        expected = unit * np.array(getattr(one.info, name))
        np.testing.assert_allclose(getattr(other.info, name), expected, rtol=1e-6)
    assert other.info.misfit == pytest.approx(one.info.misfit, rel=1e-6)


def test_tensors_in_tensors_out(run, kspace):
    arrays = run(kspace, noise_covariance=2**-7 * np.eye(4))
    tensors = run(torch.from_numpy(kspace), noise_covariance=2**-7 * torch.eye(4))
    for name in ("mean", "std", "samples", "maps"):
        assert isinstance(getattr(tensors, name), torch.Tensor)
        np.testing.assert_array_equal(getattr(tensors, name).numpy(), getattr(arrays, name))


def test_mask_marks_measured_samples(run, kspace):
    full = kspace + np.complex64(0.1)
    sampled = (kspace != 0).any(axis=(0, 2))
    expected = run(np.where(sampled[:, None], full, 0))
    for mask in (sampled, np.broadcast_to(sampled[:, None], SHAPE[1:])):
        np.testing.assert_array_equal(run(full, mask=mask).mean, expected.mean)
    # a line measured as zero differs from one that was not measured
    zeroed = kspace.copy()
    zeroed[:, 2] = 0
    without = run(zeroed, maps=expected.maps[0])
    measured = run(zeroed, maps=expected.maps[0], mask=sampled)
    assert np.abs(measured.mean - without.mean).max() > 0
    with pytest.raises(InputError, match=r"mask has shape \(3,\): expected"):
        run(full, mask=np.ones(3, bool))
    with pytest.raises(InputError, match="mask is float64"):
        run(full, mask=np.ones(32))


def test_sampler_options_by_name_and_as_object_are_equal(run, kspace):
    by_name = run(kspace, tolerance=0.05)
    as_object = run(kspace, sampler=PosteriorOptions(tolerance=0.05), steps=3)
    np.testing.assert_array_equal(as_object.mean, by_name.mean)
    assert run(kspace, sampler=PosteriorOptions(steps=4), steps=None).info.steps == 4
    assert run(kspace, sampler=LangevinOptions(), steps=2).info.sampler == "langevin"
    with pytest.raises(InputError, match="sampler option 'toleranse'"):
        run(kspace, sampler=PosteriorOptions(), toleranse=1)


def test_info_has_one_entry_per_slice(run, kspace):
    broken = kspace.copy()
    broken[:] = np.nan
    one, two = run(kspace), run(np.stack([kspace, broken]))
    for name in ("unsampled_fraction", "sigma_n", "sigma_thermal", "misfit", "scale", "fallback"):
        assert isinstance(getattr(one.info, name), tuple)
        assert len(getattr(one.info, name)) == 1
        assert len(getattr(two.info, name)) == 2
        assert getattr(two.select(0).info, name) == pytest.approx(getattr(one.info, name))
    assert two.info.fallback == (None, "k-space holds no measured samples")
    assert two.info.reason == two.select(1).info.reason == two.info.fallback[1]


def test_repr_of_a_reconstruction(run, kspace):
    shown = repr(run(kspace))
    assert shown == "<Reconstruction of 1 x 32 x 32: 2 samples by posterior, prior GaussianPrior>"
    broken = np.full_like(kspace, np.nan)
    assert "1 of them classical: k-space holds no measured samples" in repr(run(broken))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda k: np.abs(k), "kspace is float32: expected complex"),
        (lambda k: k.real, "kspace is float32: expected complex"),
        (lambda k: np.zeros((256, 256, 8), complex), "is the coil the last axis"),
        (lambda k: np.zeros((64, 64, 4), complex), "is the coil the last axis"),
    ],
)
def test_data_that_are_not_kspace_are_an_error(run, kspace, change, message):
    with pytest.raises(InputError, match=message):
        run(change(kspace))


def test_suspicious_data_are_logged(run, kspace, caplog):
    run(np.moveaxis(kspace, 0, -1)[:10], sampler="none")
    assert "is the coil the last axis" in caplog.text
    run(np.abs(kspace).astype(complex))
    assert "is it a magnitude" in caplog.text
    maps = np.full(SHAPE, 1.0 + 0j)
    run(kspace, maps=maps)
    assert "maps have a norm of 2 over the coils" in caplog.text
    uncentred = run(np.fft.ifftshift(kspace, axes=(-2, -1)))
    assert "at the corners of k-space" in uncentred.info.reason


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
def test_scale_that_is_not_positive_is_an_error(run, kspace, scale):
    with pytest.raises(InputError, match="scale is"):
        run(kspace, scale=scale)


@pytest.mark.parametrize(("name", "meant"), [("sample", "samples"), ("step", "steps")])
def test_misspelled_argument_suggests_the_closest(run, kspace, name, meant):
    with pytest.raises(InputError, match=rf"'{name}' \(did you mean '{meant}'\?\)"):
        run(kspace, **{name: 2})


def test_quantiles_are_the_intervals_of_the_score(run, kspace):
    result = run(kspace, samples=4)
    low, middle, high = result.quantiles((0.05, 0.5, 0.95))[0]
    np.testing.assert_allclose(middle, result.magnitude[0], rtol=1e-5)
    assert (low >= 0).all()
    effective = result.info.effective_samples
    expected = stats.t.ppf(0.95, 3) * result.magnitude_std[0] * np.sqrt(1 + 1 / effective)
    np.testing.assert_allclose(high - middle, expected, rtol=1e-3, atol=1e-5)
    with pytest.raises(InputError, match="between 0 and 1"):
        result.quantiles((5, 95))


def test_g_factor_and_complex_mean_of_a_result(run, kspace, tmp_path):
    result = run(kspace)
    sampling = result.sampling[0]
    expected = g_factor(result.maps[0], sampling.mask, sampling.noise_covariance)
    np.testing.assert_array_equal(result.g_factor(), expected[:1])
    nibabel = pytest.importorskip("nibabel")
    result.to_nifti(tmp_path / "mean.nii", "complex_mean")
    stored = nibabel.load(tmp_path / "mean.nii")
    np.testing.assert_array_equal(np.asarray(stored.dataobj)[..., 0].T, result.mean[0])
