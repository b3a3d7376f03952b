"""Lines of k-space that contradict the others cost their own information, and no more."""

from types import SimpleNamespace

import numpy as np
import pytest

import scoremri_core.recon.sample as sampling
from scoremri_core import reconstruct
from scoremri_core.kspace import KSpace
from scoremri_core.mri.fourier import to_kspace
from scoremri_core.mri.sampling import Box
from scoremri_core.recon.held_out import EVERY, worse_than_classical
from scoremri_core.recon.noise_model import NoiseModel
from scoremri_core.recon.prepare import Slice
from scoremri_core.recon.result import describe_inconsistent_lines
from scoremri_core.score.metrics import psnr
from scoremri_core.simulation.masks import make_mask
from scoremri_core.simulation.simulation import SimulatedScan

N = 48


def scan(coils=8, snr=200.0, contrast="t1"):
    """Full k-space (coil, y, x) of a head, its image and its coil maps."""
    made = SimulatedScan((N, N), coils=coils, oversampling=1, snr=snr, contrast=contrast)
    rng = np.random.default_rng(0)
    white = rng.standard_normal((2, coils, N, N)) / snr
    kspace = to_kspace(made.coil_maps[0] * made.image[0]) + white[0] + 1j * white[1]
    return kspace.astype(np.complex64), made.image[0], made.coil_maps[0]


def covariance(coils=8, snr=200.0):
    return 2 / snr**2 * np.eye(coils)


def measured(kspace, factor, lines):
    return kspace * make_mask("equispaced", (N,), factor, lines).sampled[:, None]


def sampled(kspace, **options):
    return reconstruct(kspace, samples=2, device="cpu", **options)


def known(maps):
    """What the far lines would tell of the noise, of which one is corrupt, is given."""
    return {"maps": maps, "noise_covariance": covariance()}


# the former has coil maps of low resolution, the latter is so good that errors of its maps show
@pytest.mark.parametrize(
    ("coils", "snr", "factor", "lines"), [(8, 100.0, 3, 9), (16, 300.0, 3, 16)]
)
def test_a_sound_scan_is_sampled_and_nothing_is_said_of_its_lines(coils, snr, factor, lines):
    result = sampled(measured(scan(coils, snr)[0], factor, lines))
    assert result.info.reason is None
    assert result.info.inconsistent_lines == (0.0,)
    assert result.info.inconsistency is None


LINE = N // 2 + 12  # measured at R = 3, outside of 16 calibration lines


@pytest.fixture(scope="module")
def sound():
    """Data at R = 3, the truth, maps, and the PSNR without the line."""
    kspace, image, maps = scan()
    data = measured(kspace, 3, 16)
    assert data[:, LINE].all()
    without = data.copy()
    without[:, LINE] = 0
    return data, image, maps, psnr(sampled(without, **known(maps)).mean[0], image)


def spike(line, rng):
    """One sample in all coils."""
    line[:, N // 3] += 20 * np.exp(2j * np.pi * rng.uniform(size=len(line)))


def interference(line, rng):
    """Noise that is much louder than the signal."""
    white = rng.standard_normal((2, *line.shape))
    line += white[0] + 1j * white[1]


@pytest.mark.parametrize("corrupt", [spike, interference])
def test_a_corrupt_readout_costs_no_more_than_itself(sound, corrupt, caplog):
    data, image, maps, without = sound
    spoilt = data.copy()
    corrupt(spoilt[:, LINE], np.random.default_rng(1))
    result = sampled(spoilt, **known(maps))
    assert result.info.reason is None
    assert psnr(result.mean[0], image) > without - 0.5
    share = 1 / int(data[0].any(1).sum())
    assert result.info.inconsistent_lines[0] == pytest.approx(share)
    assert result.info.inconsistency in caplog.text
    assert "the patient may have moved" in result.info.inconsistency


def test_what_is_said_of_a_share():
    assert describe_inconsistent_lines(0.0) is None
    assert describe_inconsistent_lines(float("nan")) is None
    assert describe_inconsistent_lines(0.0238).startswith("2.4 % of the measured samples")


def test_where_held_lines_speak_for_the_classical_image_it_is_sent(sound, monkeypatch):
    data, _, maps, _ = sound
    spoilt = data.copy()
    spike(spoilt[:, LINE], np.random.default_rng(1))
    asked = []

    def all_of_them(slices, draw):
        asked.extend(slices)
        return slices

    monkeypatch.setattr(sampling, "worse_than_classical", all_of_them)
    options = {**known(maps), "samples": 2, "steps": 2, "device": "cpu"}
    both = reconstruct(np.stack([data, spoilt]), **options)
    assert [own.number for own in asked] == [1]  # a sound slice is not asked about
    assert both.info.fallback[0] is None
    assert "predicts held-out lines better" in both.info.fallback[1]
    assert np.isfinite(both.mean).all()
    assert np.isnan(both.std[1]).all()


def prepared(kspace, maps):
    """A slice whose noise and maps are known."""
    full = KSpace.of(kspace)
    return Slice(full, Box(full.mask), full, NoiseModel(covariance()), maps[None], 0, 0, full.unit)


def knowing(image, seen):
    """Draws whose mean is the same whatever the data, which are kept."""

    def draw(slices):
        for own in slices:
            seen.append(own.kspace.array)
            own.mean = image[None] / own.kspace.unit

    return draw


def test_held_lines_tell_which_image_is_nearer_to_the_truth(sound):
    data, image, maps, _ = sound
    own = prepared(data, maps)
    seen = []
    assert worse_than_classical([own], knowing(image, seen)) == []
    assert worse_than_classical([own], knowing(0 * image, seen)) == [own]
    lines = [k.any((0, 2)) for k in (data, seen[0])]
    held = np.flatnonzero(lines[0] & ~lines[1])
    outside = np.setdiff1d(np.flatnonzero(lines[0]), np.arange(N // 2 - 8, N // 2 + 8))
    assert set(held) < set(outside)
    assert len(held) == pytest.approx(len(outside) / EVERY, abs=1)
    np.testing.assert_array_equal(own.kspace.array, data)  # it stays as it was


def test_a_held_line_that_is_corrupt_decides_nothing(sound):
    data, image, maps, _ = sound
    seen = []
    worse_than_classical([prepared(data, maps)], knowing(image, seen))
    held = np.flatnonzero(data.any((0, 2)) & ~seen[0].any((0, 2)))
    spoilt = data.copy()
    spike(spoilt[:, held[0]], np.random.default_rng(2))
    assert worse_than_classical([prepared(spoilt, maps)], knowing(image, [])) == []


def test_without_lines_to_hold_back_samples_are_kept(sound):
    _, image, maps, _ = sound
    own = prepared(to_kspace(maps * image).astype(np.complex64), maps)  # all is calibration
    drawn = SimpleNamespace(slices=None)
    assert worse_than_classical([own], lambda slices: setattr(drawn, "slices", slices)) == []
    assert drawn.slices == []
