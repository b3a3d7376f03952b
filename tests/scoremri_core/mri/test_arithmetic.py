"""Products with real factors, and memory layout."""

import pytest
import torch

from scoremri_core.mri.arithmetic import real_pairs, scale_complex, scale_complex_, y_contiguous


@pytest.mark.parametrize("shape", [(2, 3, 1, 5, 4), (2, 1, 1, 5, 4), (2, 1, 1, 5, 1), (5, 4)])
def test_scaling_equals_the_complex_product(shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 1, 5, 4, dtype=torch.complex64, generator=generator)
    factors = torch.randn(*shape, generator=generator)
    for tensor in (x, y_contiguous(x)):
        torch.testing.assert_close(
            scale_complex(tensor, real_pairs(factors)), factors * x, rtol=0, atol=0
        )
    torch.testing.assert_close(
        scale_complex_(y_contiguous(x), real_pairs(factors)), factors * x, rtol=0, atol=0
    )


def test_results_are_y_contiguous():
    x = torch.randn(2, 3, 6, 5, dtype=torch.complex64)
    copy = y_contiguous(x)
    assert torch.equal(copy, x)
    assert copy.stride()[-2:] == (1, 6)
    assert y_contiguous(copy).data_ptr() == copy.data_ptr()
    for y in (scale_complex(copy, real_pairs(torch.rand(6, 5))), torch.fft.fft(copy, dim=-2)):
        assert y.stride()[-2:] == (1, 6)
