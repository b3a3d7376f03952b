"""Results do not depend on the caller's settings of torch and NumPy, which do not change."""

import pickle
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from scoremri_core import Reconstructor, load_prior, reconstruct
from scoremri_core.mri.fourier import to_kspace

NY, NX, COILS = 32, 24, 3
OPTIONS = {"samples": 2, "steps": 2}


@pytest.fixture(scope="module")
def kspace():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : NY * 1j, -1 : 1 : NX * 1j]
    image = (y**2 + x**2 < 0.7) * np.exp(1j * x)
    maps = np.exp(-((y - np.array([-1, 0, 1])[:, None, None]) ** 2) / 2)
    noise = rng.standard_normal((2, COILS, NY, NX))
    k = to_kspace(maps * image) + 0.01 * (noise[0] + 1j * noise[1])
    k[:, [*range(1, 9, 2), *range(24, 32, 2)]] = 0
    return k.astype(np.complex64)


@pytest.fixture(scope="module")
def plain(kspace):
    return reconstruct(kspace, **OPTIONS)


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        assert torch.get_default_dtype() == dtype
        torch.set_default_dtype(before)


@contextmanager
def numpy_raises():
    with np.errstate(all="raise"):
        yield
        assert np.geterr()["under"] == "raise"


SETTINGS = {
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "meta": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "NumPy raises": numpy_raises,
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_result_does_not_depend_on_settings_of_the_caller(setting, kspace, plain):
    with SETTINGS[setting]():
        loaded = reconstruct(kspace, prior=load_prior("default"), **OPTIONS)
        named = reconstruct(kspace, **OPTIONS)
    for result in (loaded, named):
        np.testing.assert_array_equal(result.samples, plain.samples)
    # objects cached under a setting work without it
    np.testing.assert_array_equal(reconstruct(kspace, **OPTIONS).samples, plain.samples)


def tensors(kspace):
    k = torch.from_numpy(kspace)
    yield "conjugated", torch.from_numpy(kspace.conj().copy()).conj()
    yield "negated", torch.from_numpy(-kspace).neg().clone()._neg_view()._neg_view()
    yield (
        "strided",
        torch.from_numpy(np.ascontiguousarray(kspace.transpose(2, 1, 0))).permute(2, 1, 0),
    )
    yield "with gradients", k.clone().requires_grad_()
    yield "double", k.to(torch.complex128)


def test_result_does_not_depend_on_the_kind_of_tensor(kspace, plain):
    for kind, tensor in tensors(kspace):
        result = reconstruct(tensor, **OPTIONS)
        assert not result.mean.requires_grad, kind
        np.testing.assert_array_equal(result.samples.numpy(), plain.samples, err_msg=kind)
    scale = np.abs(kspace).max()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns once that complex32 is experimental
        half = torch.from_numpy(kspace / scale).to(torch.complex32)
        expected = reconstruct(half.cfloat().numpy(), **OPTIONS)
    np.testing.assert_array_equal(reconstruct(half, **OPTIONS).samples.numpy(), expected.samples)


def test_global_random_states_do_not_change(kspace):
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    reconstruct(kspace, prior=load_prior("default"), **OPTIONS)
    reconstruct(kspace, sampler="hmc", prior="residual-unet", samples=1, steps=1)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_reconstructor_can_be_pickled_before_and_after_use(kspace):
    original = Reconstructor(**OPTIONS)
    original.calibrate(kspace)
    unused = pickle.loads(pickle.dumps(original))
    expected = original(kspace)
    used = pickle.loads(pickle.dumps(original))
    for copy in (unused, used):
        np.testing.assert_array_equal(copy(kspace).samples, expected.samples)
        np.testing.assert_array_equal(copy.maps, original.maps)


@pytest.mark.parametrize("unit", [2.0**200, 2.0**-200])
def test_units_out_of_the_range_of_float32_give_double_precision(kspace, plain, unit):
    result = reconstruct(kspace.astype(complex) * unit, **OPTIONS)
    assert result.info.reason is None
    assert result.mean.dtype == complex
    for name in ("mean", "std", "samples", "magnitude_std"):
        np.testing.assert_allclose(
            getattr(result, name) / unit, getattr(plain, name), rtol=1e-5, atol=1e-6
        )
    assert result.info.sigma_n[0] == pytest.approx(unit * plain.info.sigma_n[0], rel=1e-4)
