"""Inconsistent k-space lines are down-weighted and lose no more than their information."""

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
    """Maps and noise as arguments, since a corrupt outer line biases the noise estimate."""
    return {"maps": maps, "noise_covariance": covariance()}


# the first has low-resolution coil maps; in the second, errors of the maps exceed the noise
@pytest.mark.parametrize(
    ("coils", "snr", "factor", "lines"), [(8, 100.0, 3, 9), (16, 300.0, 3, 16)]
)
def test_consistent_scan_has_no_inconsistent_lines(coils, snr, factor, lines):
    result = sampled(measured(scan(coils, snr)[0], factor, lines))
    assert result.info.reason is None
    assert result.info.inconsistent_lines == (0.0,)
    assert result.info.inconsistency is None


LINE = N // 2 + 12  # measured at R = 3, outside the 16 calibration lines


@pytest.fixture(scope="module")
def sound():
    """K-space at R = 3, true image, coil maps, and the PSNR without `LINE`."""
    kspace, image, maps = scan()
    data = measured(kspace, 3, 16)
    assert data[:, LINE].all()
    without = data.copy()
    without[:, LINE] = 0
    return data, image, maps, psnr(sampled(without, **known(maps)).mean[0], image)


def spike(line, rng):
    """Corrupt one sample in all coils."""
    line[:, N // 3] += 20 * np.exp(2j * np.pi * rng.uniform(size=len(line)))


def interference(line, rng):
    """Add noise much larger than the signal."""
    white = rng.standard_normal((2, *line.shape))
    line += white[0] + 1j * white[1]


@pytest.mark.parametrize("corrupt", [spike, interference])
def test_corrupt_readout_costs_no_more_than_its_information(sound, corrupt, caplog):
    data, image, maps, without = sound
    corrupted = data.copy()
    corrupt(corrupted[:, LINE], np.random.default_rng(1))
    result = sampled(corrupted, **known(maps))
    assert result.info.reason is None
    assert psnr(result.mean[0], image) > without - 0.5
    share = 1 / int(data[0].any(1).sum())
    assert result.info.inconsistent_lines[0] == pytest.approx(share)
    assert result.info.inconsistency in caplog.text
    assert "the patient may have moved" in result.info.inconsistency


def test_message_gives_the_fraction_of_inconsistent_samples():
    assert describe_inconsistent_lines(0.0) is None
    assert describe_inconsistent_lines(float("nan")) is None
    assert describe_inconsistent_lines(0.0238).startswith("2.4 % of the measured samples")


def test_classical_image_replaces_samples_that_predict_held_out_lines_worse(sound, monkeypatch):
    data, _, maps, _ = sound
    corrupted = data.copy()
    spike(corrupted[:, LINE], np.random.default_rng(1))
    tested = []

    def all_are_worse(slices, draw):
        tested.extend(slices)
        return slices

    monkeypatch.setattr(sampling, "worse_than_classical", all_are_worse)
    options = {**known(maps), "samples": 2, "steps": 2, "device": "cpu"}
    both = reconstruct(np.stack([data, corrupted]), **options)
    assert [slice_.number for slice_ in tested] == [1]  # only the inconsistent slice
    assert both.info.fallback[0] is None
    assert "predicts held-out lines better" in both.info.fallback[1]
    assert np.isfinite(both.mean).all()
    assert np.isnan(both.std[1]).all()


def prepared(kspace, maps):
    """A slice with known noise and maps."""
    full = KSpace.of(kspace)
    return Slice(full, Box(full.mask), full, NoiseModel(covariance()), maps[None], 0, 0, full.unit)


def constant_draw(image, seen):
    """Return a sampler whose mean is `image` for any data, which it appends to `seen`."""

    def draw(slices):
        for slice_ in slices:
            seen.append(slice_.kspace.array)
            slice_.mean = image[None] / slice_.kspace.unit

    return draw


def test_held_out_lines_decide_for_the_image_closer_to_the_truth(sound):
    data, image, maps, _ = sound
    slice_ = prepared(data, maps)
    seen = []
    assert worse_than_classical([slice_], constant_draw(image, seen)) == []
    assert worse_than_classical([slice_], constant_draw(0 * image, seen)) == [slice_]
    lines = [k.any((0, 2)) for k in (data, seen[0])]
    held = np.flatnonzero(lines[0] & ~lines[1])
    outside = np.setdiff1d(np.flatnonzero(lines[0]), np.arange(N // 2 - 8, N // 2 + 8))
    assert set(held) < set(outside)
    assert len(held) == pytest.approx(len(outside) / EVERY, abs=1)
    np.testing.assert_array_equal(slice_.kspace.array, data)  # not modified


def test_one_corrupt_held_out_line_does_not_change_the_decision(sound):
    data, image, maps, _ = sound
    seen = []
    worse_than_classical([prepared(data, maps)], constant_draw(image, seen))
    held = np.flatnonzero(data.any((0, 2)) & ~seen[0].any((0, 2)))
    corrupted = data.copy()
    spike(corrupted[:, held[0]], np.random.default_rng(2))
    assert worse_than_classical([prepared(corrupted, maps)], constant_draw(image, [])) == []


def test_without_lines_to_hold_out_the_samples_stay(sound):
    _, image, maps, _ = sound
    slice_ = prepared(to_kspace(maps * image).astype(np.complex64), maps)  # fully sampled
    drawn = []
    assert worse_than_classical([slice_], drawn.append) == []
    assert drawn == [[]]
