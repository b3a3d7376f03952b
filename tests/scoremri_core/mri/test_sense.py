"""The forward operator against its adjoint and against a dense matrix."""

from functools import partial

import pytest
import torch

from scoremri_core.mri.sense import SenseOperator
from scoremri_core.samplers.conjugate_gradients import conjugate_gradients


def complex_normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.complex64)


@pytest.fixture(params=["lines", "points"])
def mask(request):
    mask = torch.rand(2, 9, 12, generator=torch.Generator().manual_seed(3)) < 0.5
    if request.param == "lines":
        mask = mask[..., :1].expand(2, 9, 12).clone()
    return mask


@pytest.fixture(params=["alike", "averaged"])
def weight(request, mask):
    """None, or how often samples were averaged, line by line where lines are dropped."""
    if request.param == "alike":
        return None
    drawn = torch.randint(1, 5, mask.shape, generator=torch.Generator().manual_seed(4)).float()
    lines = bool((mask == mask[..., :1]).all())
    return drawn[..., :1].expand(mask.shape) if lines else drawn


@pytest.mark.parametrize("sets", [1, 2])
def test_adjoint(mask, weight, sets):
    operator = SenseOperator(complex_normal(2, sets, 3, 9, 12), mask, weight)
    x, y = complex_normal(2, 4, sets, 9, 12, seed=1), complex_normal(2, 4, 3, 9, 12, seed=2)
    left = (operator.forward(x) * y.conj()).sum()
    right = (x * operator.adjoint(y).conj()).sum()
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sets", [1, 2])
def test_normal_is_adjoint_of_forward(mask, weight, sets):
    operator = SenseOperator(complex_normal(2, sets, 3, 9, 12), mask, weight)
    x = complex_normal(2, 4, sets, 9, 12, seed=1)
    expected = operator.adjoint(operator.forward(x))
    torch.testing.assert_close(operator.normal(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sets", [1, 2])
def test_diagonal_is_that_of_the_dense_matrix(mask, weight, sets):
    operator = SenseOperator(complex_normal(2, sets, 3, 9, 12), mask, weight)
    n = sets * 9 * 12
    basis = torch.eye(n, dtype=torch.complex64).view(1, n, sets, 9, 12).expand(2, -1, -1, -1, -1)
    columns = operator.normal(basis).reshape(2, n, n)
    dense = columns.diagonal(dim1=1, dim2=2).real
    torch.testing.assert_close(operator.diagonal.reshape(2, n), dense, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sets", [1, 2])
def test_kspace_diagonal_is_that_of_the_dense_matrix(mask, weight, sets):
    operator = SenseOperator(complex_normal(2, sets, 3, 9, 12), mask, weight)
    n = 9 * 12
    waves = torch.fft.ifft2(torch.eye(n, dtype=torch.complex64).view(n, 9, 12), norm="ortho")
    for i in range(sets):
        images = torch.zeros(2, n, sets, 9, 12, dtype=torch.complex64)
        images[:, :, i] = waves
        dense = (images.conj() * operator.normal(images)).sum((2, 3, 4)).real
        found = operator.kspace_diagonal(torch.full((2, 1, sets, 9, 12), 1.0))[:, 0, i]
        found = found.reshape(2, n)
        torch.testing.assert_close(found, dense, rtol=1e-4, atol=1e-4)


def test_kspace_diagonal_is_near_that_of_the_dense_matrix_for_smooth_maps_and_weights():
    n = 16
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n),) * 2, indexing="ij")
    centres = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    maps = torch.stack([torch.exp(-((y - a) ** 2 + (x - b) ** 2) / 4) for a, b in centres])
    mask = torch.zeros(1, n, n, dtype=torch.bool)
    mask[:, ::3] = mask[:, 6:10] = True
    operator = SenseOperator(maps.to(torch.complex64)[None, None], mask)
    weights = (0.3 + torch.exp(-4 * (y**2 + x**2)))[None, None, None]
    waves = torch.fft.ifft2(torch.eye(n * n, dtype=torch.complex64).view(-1, n, n), norm="ortho")
    images = weights * waves[None, :, None]
    dense = (images.conj() * operator.normal(images)).sum((2, 3, 4)).real.view(n, n)
    found = operator.kspace_diagonal(weights)[0, 0, 0]
    assert float((found - dense).norm() / dense.norm()) < 0.1


@pytest.mark.parametrize("sets", [1, 2])
def test_pull_is_the_adjoint_of_what_the_image_leaves_of_the_data(mask, weight, sets):
    operator = SenseOperator(complex_normal(2, sets, 3, 9, 12), mask, weight)
    x, y = complex_normal(2, 4, sets, 9, 12, seed=1), complex_normal(2, 3, 9, 12, seed=2)
    expected = operator.adjoint(y[:, None] - operator.forward(x))
    found = operator.adjoint_residual(operator.reduced(y)[:, None], x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_pull_adds_noise_of_the_precision_to_what_was_measured(mask, weight):
    operator = SenseOperator(complex_normal(2, 1, 3, 9, 12), mask, weight)
    x, y = complex_normal(2, 4, 1, 9, 12, seed=1), complex_normal(2, 3, 9, 12, seed=2)
    e = complex_normal(2, 4, 3, 12, max(map(len, operator.rows)), seed=3)
    variance = 0.5 + torch.rand(2, 4, 1, *operator.precision.shape[-2:])
    weighted = operator.weighted(1 / variance)
    reduced = operator.reduced(y)[:, None]
    expected = weighted.adjoint_residual(reduced + variance.sqrt() * operator.on_rows(e), x)
    torch.testing.assert_close(
        weighted.adjoint_residual(reduced, x, e), expected, rtol=1e-4, atol=1e-4
    )


def test_a_sample_averaged_n_times_counts_n_times(mask, weight):
    plain = SenseOperator(complex_normal(2, 1, 3, 9, 12), mask)
    operator = SenseOperator(plain.maps, mask, weight)
    x, y = complex_normal(2, 4, 1, 9, 12, seed=1), complex_normal(2, 3, 9, 12, seed=2)
    left = (y * mask[:, None])[:, None] - plain.forward(x)
    often = torch.ones(mask.shape) if weight is None else weight
    squares = often[:, None, None] * left.abs().square()
    reduced = operator.reduced(y * often[:, None].sqrt())[:, None]
    power = operator.residual_power(reduced, x)
    torch.testing.assert_close(power.sum((2, 3)), squares.sum((2, 3, 4)), rtol=1e-4, atol=1e-4)
    expected = plain.adjoint(often[:, None, None] * left)
    torch.testing.assert_close(
        operator.adjoint_residual(reduced, x), expected, rtol=1e-4, atol=1e-4
    )


def test_frames_are_independent(mask):
    maps = complex_normal(2, 1, 3, 9, 12)
    x = complex_normal(2, 4, 1, 9, 12, seed=1)
    alone = SenseOperator(maps[1:], mask[1:]).forward(x[1:])
    torch.testing.assert_close(SenseOperator(maps, mask).forward(x)[1:], alone)


def test_conjugate_gradients_solves_every_system_to_its_tolerance():
    n, tolerance = 30, 1e-4
    root = complex_normal(2, 3, n, n)
    matrix = root @ root.mH / n + torch.tensor([0.1, 1.0]).view(2, 1, 1, 1) * torch.eye(n)
    truth = complex_normal(2, 3, n, seed=1)

    def apply(x, matrix=matrix):
        # not a matrix product, which would round by the size of the batch
        return (matrix * x[..., None, :]).sum(-1)

    b = apply(truth)
    x, iterations = conjugate_gradients(apply, b, lambda r: r, tolerance, max_iterations=200)
    residual = (b - apply(x)).norm(dim=-1) / b.norm(dim=-1)
    assert float(residual.max()) < 1.1 * tolerance
    assert 1 < iterations < 200
    # a system solved alone ends where it ends in company
    for frame, sample in ((0, 0), (1, 2)):
        one = matrix[frame : frame + 1, sample : sample + 1]
        alone, _ = conjugate_gradients(
            partial(apply, matrix=one),
            b[frame : frame + 1, sample : sample + 1],
            lambda r: r,
            tolerance,
            max_iterations=200,
        )
        torch.testing.assert_close(alone[0, 0], x[frame, sample], rtol=1e-5, atol=1e-5)
