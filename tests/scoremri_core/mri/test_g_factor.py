"""The g-factor against the closed form of regular undersampling."""

import numpy as np
import pytest

from scoremri_core.errors import InputError
from scoremri_core.mri.g_factor import g_factor
from scoremri_core.simulation.receive_coils import loop_sensitivities

SHAPE = 32, 24


def coil_maps(coils=6):
    y, x = (np.linspace(-90, 90, n) for n in SHAPE)
    return loop_sensitivities(y, x, 0.0, coils)


def lines(step, axis=0):
    mask = np.zeros(SHAPE, bool)
    index = [slice(None)] * 2
    index[axis] = slice(SHAPE[axis] // 2 % step, None, step)
    mask[tuple(index)] = True
    return mask


def closed_form(maps, step, covariance):
    """Pruessmann 1999: sqrt((S^H C^-1 S)^-1_ii (S^H C^-1 S)_ii) over the aliases of a pixel."""
    precision = np.linalg.inv(covariance)
    g = np.zeros(SHAPE)
    distance = SHAPE[0] // step
    for y, x in np.ndindex(*SHAPE):
        aliases = [(y + i * distance) % SHAPE[0] for i in range(step)]
        sensitivity = maps[:, aliases, x].astype(complex)
        normal = sensitivity.conj().T @ precision @ sensitivity
        g[y, x] = np.sqrt((np.linalg.inv(normal)[0, 0] * normal[0, 0]).real)
    return g


@pytest.mark.parametrize("step", [2, 4])
def test_g_factor_of_regular_lines_is_the_closed_form(step):
    maps, rng = coil_maps(), np.random.default_rng(0)
    mixing = np.eye(6) + 0.2 * (rng.normal(size=(6, 6)) + 1j * rng.normal(size=(6, 6)))
    covariance = mixing @ mixing.conj().T
    expected = closed_form(maps, step, covariance)
    assert expected.max() > 1.02
    np.testing.assert_allclose(g_factor(maps, lines(step), covariance), expected, rtol=0.01)


def test_g_factor_is_1_if_fully_sampled_and_does_not_depend_on_equal_averages():
    maps = coil_maps()
    full = np.ones(SHAPE, bool)
    np.testing.assert_allclose(g_factor(maps, full), 1, rtol=1e-3)
    once, twice = (g_factor(maps, lines(2), averages=np.full(SHAPE, n)) for n in (1, 2))
    np.testing.assert_allclose(once, twice, rtol=1e-3)


def test_lines_along_either_axis_are_equivalent():
    maps = coil_maps()
    swapped = g_factor(maps.swapaxes(1, 2), lines(2).T)
    np.testing.assert_allclose(swapped.T, g_factor(maps, lines(2)), rtol=1e-3)


def test_replicas_agree_with_the_exact_g_factor():
    maps, mask = coil_maps(), lines(3)
    mask[0, 0] = True  # one sample more: no longer whole lines
    exact = g_factor(maps, lines(3))
    ratio = g_factor(maps, mask) / exact
    assert abs(ratio.mean() - 1) < 0.03
    assert ratio.std() < 0.1


def test_g_factor_of_two_sets_where_the_second_is_zero_is_that_of_the_first():
    maps = coil_maps()
    both = g_factor(np.stack([maps, 0 * maps]), lines(2))
    np.testing.assert_allclose(both[0], g_factor(maps, lines(2)), rtol=1e-3)
    assert not both[1].any()


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(InputError, match="maps has shape"):
        g_factor(coil_maps(), np.ones((3, 3), bool))
