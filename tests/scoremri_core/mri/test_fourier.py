"""Fourier transforms of arrays and tensors."""

import sys
import types

import numpy as np
import pytest
import torch

from scoremri_core.mri.fourier import fft, to_image, to_kspace


@pytest.mark.parametrize("shape", [(8, 6), (9, 7), (8, 7)])
def test_origin_is_index_n_half_for_arrays_and_tensors(shape):
    rng = np.random.default_rng(0)
    image = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    y, x = (np.arange(n) - n // 2 for n in shape)
    waves_y, waves_x = (
        np.exp(-2j * np.pi * np.outer(k, k) / len(k)) / np.sqrt(len(k)) for k in (y, x)
    )
    expected = waves_y @ image @ waves_x.T
    np.testing.assert_allclose(to_kspace(image), expected, atol=1e-5)
    np.testing.assert_allclose(to_kspace(torch.from_numpy(image)).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(to_image(to_kspace(image)), image, atol=1e-5)


@pytest.mark.parametrize("axes", [(-2,), (-1,), (-2, -1)])
@pytest.mark.parametrize("shape", [(48, 44), (64, 64), (45, 63)])
def test_transform_does_not_depend_on_the_batch(axes, shape):
    """To the last bit, since networks in bfloat16 amplify rounding errors from 8e-7 to 2e-3."""
    rng = torch.Generator().manual_seed(0)
    stack = torch.randn(2, 5, 3, *shape, dtype=torch.complex64, generator=rng)
    for inverse in (False, True):
        together = fft(stack, axes, inverse)
        for single, images in (
            (stack[1:, 2:3], together[1:, 2:3]),
            (stack[1, 2, 0], together[1, 2, 0]),
        ):
            assert torch.equal(fft(single.clone(), axes, inverse), images)


def test_arrays_are_transformed_while_another_thread_imports_torch(monkeypatch):
    """As the reading thread of the stream does at its start."""
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    np.testing.assert_allclose(fft(np.ones(4, complex), (0,)), [2, 0, 0, 0], atol=1e-12)
