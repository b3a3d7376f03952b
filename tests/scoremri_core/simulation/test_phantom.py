import numpy as np
import pytest

from scoremri_core.errors import InputError
from scoremri_core.simulation.phantom import CONTRASTS, TISSUES, Field, head_slice, signal

FOV = (224.0, 180.0)


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_signals_follow_the_bloch_equations(contrast):
    """Iterate the longitudinal magnetisation to its steady state."""
    tr, te, ti = CONTRASTS[contrast]
    for tissue, (density, t1, t2) in TISSUES.items():
        m = 1.0
        for _ in range(400):
            if ti is None:
                ready = m
                m = 1 - np.exp(-tr / t1)  # saturated by the excitation
            else:
                ready = 1 - (1 + m) * np.exp(-ti / t1)
                m = 1 - np.exp(-(tr - ti) / t1)
        expected = abs(density * ready * np.exp(-te / t2))
        assert signal(tissue, contrast) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_contrasts_have_the_expected_order_of_tissues():
    order = {c: sorted(("fluid", "grey", "white"), key=lambda t: signal(t, c)) for c in CONTRASTS}
    assert order == {
        "t1": ["fluid", "grey", "white"],
        "t2": ["white", "grey", "fluid"],
        "flair": ["fluid", "white", "grey"],
    }


@pytest.mark.parametrize("shape", [(64, 64), (63, 50)])
def test_head_does_not_depend_on_the_matrix(shape):
    coarse = head_slice(shape, FOV)
    fine = head_slice([3 * n for n in shape], FOV)
    # the middle one of three fine pixels is at the centre of the coarse pixel
    padded = np.pad(fine, ((1 - shape[0] % 2, 0), (1 - shape[1] % 2, 0)))
    averaged = padded[: 3 * shape[0], : 3 * shape[1]].reshape(shape[0], 3, shape[1], 3).mean((1, 3))
    error = np.linalg.norm(np.abs(averaged) - np.abs(coarse)) / np.linalg.norm(coarse)
    assert error < 0.06


def test_the_head_is_upright_and_inside_its_field_of_view():
    image = np.abs(head_slice((112, 90), FOV, contrast="flair"))
    head = image > 0.1
    rows, columns = np.flatnonzero(head.any(1)), np.flatnonzero(head.any(0))
    assert 0.8 * 98 < len(rows) < 1.1 * 98
    assert 0.8 * 79 < len(columns) < 1.1 * 79
    assert rows[0] > 0
    assert rows[-1] < 111
    forehead, back = head[rows[0] + 10].sum(), head[rows[-1] - 10].sum()
    assert forehead < back  # the head is narrower at the front (top)


def test_seeds_heights_and_phase():
    same, again = (head_slice((48, 48), FOV, 3.0, seed=1) for _ in range(2))
    assert np.array_equal(same, again)
    assert not np.allclose(same, head_slice((48, 48), FOV, 3.0, seed=2))
    near, far = (np.linalg.norm(same - head_slice((48, 48), FOV, z, seed=1)) for z in (3.5, 25.0))
    assert near < far / 2
    assert np.ptp(np.angle(same[np.abs(same) > 0.1])) > 0.5


def test_fields_have_unit_variance_and_their_wavelength():
    axis = np.arange(256, dtype=np.float32)
    rng = np.random.default_rng(0)
    fields = np.stack([Field(rng, 16.0).on_grid(axis, axis, 0.0) for _ in range(4)])
    assert fields.std() == pytest.approx(1, rel=0.1)
    power = (np.abs(np.fft.fft(fields, axis=1)) ** 2).mean((0, 2))[:128]
    assert power[: int(256 / 16 * 1.3) + 3].sum() > 0.98 * power.sum()


def test_unknown_contrast_is_refused():
    with pytest.raises(InputError, match="expected one of t1, t2, flair"):
        head_slice((32, 32), FOV, contrast="pd")
