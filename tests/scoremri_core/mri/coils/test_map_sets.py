"""A second set of coil maps, where the field of view folds."""

import numpy as np
import pytest
from coil_scans import FULLY_SAMPLED, aliased, central_lines, similarity, simulated_coils

from scoremri_core.mri.coils.maps import estimate_coil_maps
from scoremri_core.mri.fourier import to_image, to_kspace
from scoremri_core.mri.noise.covariance import covariance_from_edges
from scoremri_core.scans.gridding import fully_sampled_kspace


def test_second_set_describes_a_field_of_view_that_folds():
    wide, image = simulated_coils(8, 96, 48)
    # A field of view of 64 of the 96 rows: the ends of the object fold onto each other.
    kspace = aliased(to_kspace(wide * image), 64)
    maps = estimate_coil_maps(central_lines(kspace, 24), sets=2)
    coils = to_image(kspace)
    signal = np.linalg.norm(coils, axis=0)
    overlap = np.zeros(64, bool)
    overlap[:6] = overlap[-6:] = True
    alone = similarity(maps[0], coils)
    both = np.sqrt(alone**2 + similarity(maps[1], coils) ** 2)
    unexplained_by_one = np.sum((signal**2 - alone**2)[overlap])
    unexplained_by_two = np.sum((signal**2 - both**2)[overlap])
    assert unexplained_by_two < 0.1 * unexplained_by_one
    # Where nothing folds there is no second set, and the sets are orthogonal.
    weight = np.linalg.norm(maps[1], axis=0)
    assert weight[28:36, 20:28].max() == 0
    assert weight[overlap][signal[overlap] > 0.5].mean() > 0.5
    assert similarity(maps[0], maps[1]).max() < 1e-3
    np.testing.assert_array_equal(estimate_coil_maps(central_lines(kspace, 24), "auto"), maps)


def test_two_sets_change_smoothly_where_their_eigenvalues_are_alike():
    wide, image = simulated_coils(8, 96, 48)
    kspace = aliased(to_kspace(wide * image), 64)
    noise = np.random.default_rng(4).normal(size=(2, *kspace.shape)) * 0.05
    kspace = central_lines(kspace + noise[0] + 1j * noise[1], 24)
    maps = estimate_coil_maps(kspace, sets=2)
    twice = np.linalg.norm(maps[1], axis=0) > 0.99  # both eigenvalues above .9
    for own in maps:
        along_x = similarity(own[..., 1:], own[..., :-1])[twice[:, 1:] & twice[:, :-1]]
        assert np.percentile(along_x, 1) > 0.97


def test_auto_gives_a_second_set_to_the_slices_that_fold():
    truth, image = simulated_coils(6, 96, 48)
    unfolding = to_kspace(truth * np.pad(image[::2], ((24, 24), (0, 0))))
    stack = np.stack([aliased(to_kspace(truth * image), 64), aliased(unfolding, 64)])
    stack = np.stack([central_lines(kspace, 24) for kspace in stack])
    maps = estimate_coil_maps(stack, "auto")
    assert maps.shape == (2, 2, 6, 64, 48)
    assert maps[0, 1].any()
    assert not maps[1, 1].any()
    np.testing.assert_allclose(maps[0], estimate_coil_maps(stack[0], 2), atol=1e-5)
    np.testing.assert_allclose(maps[1, :1], estimate_coil_maps(stack[1], "auto"), atol=1e-3)
    assert estimate_coil_maps(stack[1:], "auto").shape == (1, 1, 6, 64, 48)


@pytest.mark.parametrize("lines", [16, 24, 32])
@pytest.mark.parametrize("white", [False, True])
def test_auto_tells_whether_a_real_scan_folds(raw_data, lines, white):
    # The abdomen is not among them: it runs through the upper and lower edge of its image.
    for scan in (name for name in FULLY_SAMPLED if not name.startswith("abdomen")):
        full = fully_sampled_kspace(raw_data / scan)[-1]
        half = aliased(full, full.shape[1] // 2)
        for kspace, sets in ((full, 1), (half, 1 if len(full) == 1 else 2)):
            covariance = covariance_from_edges(kspace) if white else None
            maps = estimate_coil_maps(central_lines(kspace, lines), "auto", covariance)
            assert len(maps) == sets, scan
