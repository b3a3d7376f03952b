"""Coil maps from few calibration lines, against the true maps of simulated scans."""

import numpy as np
import pytest
from coil_scans import central_lines, similarity, simulated_coils

from scoremri_core import reconstruct
from scoremri_core.errors import CalibrationError
from scoremri_core.mri.coils.completion import complete_calibration
from scoremri_core.mri.coils.espirit import eigenvectors, kernels, lag_matrices
from scoremri_core.mri.coils.maps import estimate_coil_maps
from scoremri_core.mri.fourier import to_kspace
from scoremri_core.simulation.masks import make_mask

SIGMA = 0.01
COVARIANCE = 2 * SIGMA**2 * np.eye(6)
TRUTH, IMAGE = simulated_coils(6, 64, 60)
NOISE = np.random.default_rng(0).normal(size=(2, 6, 64, 60))
KSPACE = (to_kspace(TRUTH * IMAGE) + SIGMA * (NOISE[0] + 1j * NOISE[1])).astype(np.complex64)


def undersampled(lines, kind="equispaced", factor=3):
    """Return k-space and mask (y, x)."""
    mask = np.zeros((64, 60), bool)
    mask[make_mask(kind, [64], factor, lines).sampled] = True
    return KSPACE * mask, mask


def loss(maps):
    """Fraction of the signal energy outside of the span of the maps."""
    energy = np.abs(IMAGE) ** 2
    return float(np.sum((1 - similarity(maps, TRUTH) ** 2) * energy) / energy.sum())


def completed_maps(kspace, mask):
    values, mask = complete_calibration(kspace, mask, COVARIANCE)
    return estimate_coil_maps(values, 1, COVARIANCE, mask=mask)[0]


@pytest.mark.parametrize("kind", ["equispaced", "random"])
@pytest.mark.parametrize(("lines", "bound"), [(12, 1e-4), (8, 1e-3), (6, 2e-3)])
def test_maps_from_few_lines_are_close_to_the_truth(lines, bound, kind):
    assert loss(completed_maps(*undersampled(lines, kind))) < bound


def test_completion_improves_the_maps():
    kspace, mask = undersampled(8)
    plain = estimate_coil_maps(kspace, 1, COVARIANCE, mask=mask)[0]
    assert loss(completed_maps(kspace, mask)) < loss(plain) / 2


def test_small_centre_of_two_phase_encode_directions_is_completed():
    mask = make_mask("poisson", [64, 60], 4, 8).sampled
    completed, region = complete_calibration(KSPACE * mask, mask, COVARIANCE)
    assert region[20:44, 18:42].all()
    assert region.sum() == 24**2
    np.testing.assert_array_equal(completed[:, mask & region], KSPACE[:, mask & region])
    assert loss(completed_maps(KSPACE * mask, mask)) < 1e-3


def test_16_or_more_lines_are_not_changed():
    kspace, mask = undersampled(16)
    completed, region = complete_calibration(kspace, mask, COVARIANCE)
    assert completed is kspace
    assert region is mask
    lines = central_lines(KSPACE, 24)
    np.testing.assert_array_equal(estimate_coil_maps(lines), estimate_coil_maps(lines, kernel=6))


def test_short_axis_that_is_fully_sampled_is_not_changed():
    kspace = KSPACE[:, 26:38]
    mask = np.ones(kspace.shape[1:], bool)
    assert complete_calibration(kspace, mask, COVARIANCE)[0] is kspace


def test_anisotropic_kernels_give_the_maps_of_isotropic_ones():
    block = central_lines(KSPACE, 24)[None, :, 20:44, 14:46]
    maps = [
        eigenvectors(lag_matrices(kernels(block, k, SIGMA, np), np), (64, 60), 1, np)[0][0, 0]
        for k in ((6, 6), (4, 6), (6, 4), (3, 6))
    ]
    for other in maps[1:]:
        assert np.median(similarity(maps[0], other)[np.abs(IMAGE) > 0]) > 0.9999


def test_4_lines_warn_and_fewer_are_no_calibration(caplog):
    kspace = central_lines(KSPACE, 4)
    result = reconstruct(np.stack([kspace, kspace]), sampler="none")
    assert result.info.fallback == (None, None)
    (warning,) = [message for message in caplog.messages if "are few" in message]
    assert warning.startswith("4 x 60 calibration samples are few")
    assert warning.endswith("(2 of 2 slices)")
    with pytest.raises(CalibrationError, match="no calibration lines"):
        complete_calibration(*undersampled(0), COVARIANCE)
