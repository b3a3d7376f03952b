import numpy as np
import pytest

from scoremri_core.errors import InputError
from scoremri_core.simulation.masks import KINDS, calibration_width, make_mask
from scoremri_core.simulation.retrospective import kept_samples


@pytest.mark.parametrize("n", [180, 181])
@pytest.mark.parametrize("center", [None, 54])
def test_equispaced_counts_every_rth_line_and_the_block(n, center):
    mask = make_mask("equispaced", (n,), 4, 24, center=None if center is None else (center,))
    c = n // 2 if center is None else center
    grid = {i for i in range(n) if (i - c) % 4 == 0}
    block = set(range(c - 12, c + 12))
    assert set(np.flatnonzero(mask.imaging)) == grid
    assert set(np.flatnonzero(mask.calibration)) == block
    assert set(np.flatnonzero(mask.sampled)) == grid | block
    assert mask.acceleration == n / len(grid | block)


def test_block_of_odd_width_is_centred_at_dc():
    mask = make_mask("equispaced", (20,), 5, 5)
    assert np.flatnonzero(mask.calibration).tolist() == [8, 9, 10, 11, 12]


@pytest.mark.parametrize("kind", ["random", "gaussian", "poisson"])
@pytest.mark.parametrize(("shape", "r", "width"), [((180,), 4, 24), ((63, 41), 6.5, 9)])
def test_random_masks_sample_one_in_r_outside_of_the_block(kind, shape, r, width):
    mask = make_mask(kind, shape, r, width, seed=3)
    outside = mask.sampled & ~mask.calibration
    assert int(mask.calibration.sum()) == width ** len(shape)
    assert int(outside.sum()) == round((mask.sampled.size - width ** len(shape)) / r)
    assert np.array_equal(mask.sampled, make_mask(kind, shape, r, width, seed=3).sampled)
    assert not np.array_equal(mask.sampled, make_mask(kind, shape, r, width, seed=4).sampled)


@pytest.mark.parametrize("kind", ["random", "gaussian"])
def test_density_falls_towards_the_edges(kind):
    counts = sum(make_mask(kind, (128,), 4, 0, seed=s).sampled.astype(int) for s in range(50))
    assert counts[48:80].mean() > 3 * np.r_[counts[:16], counts[-16:]].mean()


def test_poisson_keeps_a_distance_between_steps():
    def nearest(kind):
        steps = np.argwhere(make_mask(kind, (64, 64), 8, 0, seed=1).sampled)
        away = np.linalg.norm(steps[:, None] - steps[None], axis=-1)
        np.fill_diagonal(away, np.inf)
        return away.min(axis=1)

    assert nearest("random").min() == 1
    assert nearest("poisson").min() > 1.4
    gaps = np.diff(np.flatnonzero(make_mask("poisson", (256,), 8, 0).sampled))
    assert gaps.min() >= 3


def test_equispaced_over_two_axes_is_a_lattice_through_dc():
    mask = make_mask("equispaced", (32, 24), 6)
    assert mask.factors == (3, 2)
    assert mask.imaging[16, 12]
    assert mask.acceleration == pytest.approx(6, rel=0.1)


def test_no_acceleration_samples_everything():
    for kind in KINDS:
        assert make_mask(kind, (31,), 1, 4).sampled.all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("spiral", (64,), 4), "expected one of equispaced"),
        (("equispaced", (64,), 0.5), "acceleration 0.5: expected 1 to 64"),
        (("random", (64,), 65), "expected 1 to 64"),
        (("equispaced", (64,), 2.5), "expected a whole number"),
        (("random", (64,), 4, 65), "calibration 65"),
        (("random", (64,), 4, -1), "calibration -1"),
    ],
)
def test_errors_name_the_argument(arguments, words):
    with pytest.raises(InputError, match=words):
        make_mask(*arguments)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shape", "width"), [((180,), 14), ((60, 48), 6)])
def test_true_acceleration_counts_the_block(kind, shape, width):
    mask = make_mask(kind, shape, 6, width, seed=2, true=True)
    assert mask.calibration.sum() == width ** len(shape)
    tolerance = 0.1 if kind == "equispaced" else 0.01  # rounded steps of a fractional spacing
    assert mask.acceleration == pytest.approx(6, rel=tolerance)
    with pytest.raises(InputError, match="calibration block"):
        make_mask(kind, shape, 60, 20, true=True)


def test_uniform_density_is_constant():
    counts = sum(make_mask("uniform", (128,), 4, 0, seed=s).sampled.astype(int) for s in range(80))
    assert counts[48:80].mean() == pytest.approx(20, rel=0.15)
    assert np.r_[counts[:16], counts[-16:]].mean() == pytest.approx(20, rel=0.15)


def test_calibration_is_a_number_or_a_share_of_the_lines():
    assert calibration_width(24, 180) == calibration_width("24", 99) == 24
    assert calibration_width("8%", 180) == 14
    assert calibration_width("4 %", 320) == 13
    for wrong in ("eight", "-3", "8.5", "%", "-4%"):
        with pytest.raises(InputError, match="share"):
            calibration_width(wrong, 180)


def test_columns_are_transposed_lines():
    received = np.ones((60, 44), bool)
    columns = kept_samples(received.T, "uniform", 4, "10%", 3, "readout", true=True)
    lines = kept_samples(received, "uniform", 4, "10%", 3, "phase", true=True)
    np.testing.assert_array_equal(columns, lines.T)
    assert (lines == lines[:, :1]).all()
    assert received.size / lines.sum() == pytest.approx(4)
    both = kept_samples(received, "random", 5, 8, 3, "both")
    assert both.size / both.sum() == pytest.approx(5, rel=0.01)
    np.testing.assert_array_equal(
        kept_samples(received, "poisson-2d", 5, 8, 3),
        kept_samples(received, "poisson", 5, 8, 3, "both"),
    )
