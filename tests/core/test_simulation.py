import numpy as np
import pytest

from scoremri_core.errors import InputError
from scoremri_core.fourier import to_image
from scoremri_core.gridding import zero_filled_kspace
from scoremri_core.noise import covariance_from_scan
from scoremri_core.scans import flag_bits
from scoremri_core.simulation import SimulatedScan, loop_sensitivities

NOISE = flag_bits(19)


@pytest.mark.parametrize("matrix", [(48, 40), (33, 45)])
@pytest.mark.parametrize("oversampling", [1, 2])
def test_a_fully_sampled_combination_returns_the_truth(matrix, oversampling):
    scan = SimulatedScan(matrix, coils=4, slices=2, oversampling=oversampling, snr=1e5)
    images = to_image(zero_filled_kspace(scan))
    combined = np.sum(scan.coil_maps.conj() * images, axis=1)
    assert np.allclose(np.sum(np.abs(scan.coil_maps) ** 2, axis=1), 1, atol=1e-5)
    assert np.abs(combined - scan.image).max() < 1e-3 * np.abs(scan.image).max()


def test_the_combination_has_the_noise_that_snr_says():
    scan = SimulatedScan((64, 64), coils=6, snr=20, seed=3)
    images = to_image(zero_filled_kspace(scan))
    noise = images - scan.coil_maps * scan.image[:, None]
    sd = np.sqrt(np.mean([noise.real**2, noise.imag**2]))
    assert sd == pytest.approx(1 / 20, rel=0.01)


def test_the_noise_scan_has_the_covariance_of_the_data():
    scan = SimulatedScan((96, 96), coils=5, snr=5)
    readouts = list(scan)
    noise = [a for a in readouts if a.flags & NOISE]
    dwell = noise[0].sample_time_us / readouts[-1].sample_time_us
    assert dwell != 1
    bandwidth = scan.header.acquisitionSystemInformation.relativeReceiverNoiseBandwidth
    samples = np.concatenate([a.data for a in noise], axis=1)
    estimate = covariance_from_scan(samples, dwell, bandwidth)

    residual = to_image(zero_filled_kspace(scan)) - scan.coil_maps * scan.image[:, None]
    residual = residual.swapaxes(0, 1).reshape(5, -1)
    measured = residual @ residual.conj().T / residual.shape[1]
    scale = np.abs(scan.noise_covariance).max()
    assert np.abs(estimate - scan.noise_covariance).max() < 0.06 * scale
    assert np.abs(measured - scan.noise_covariance).max() < 0.06 * scale
    assert np.abs(np.triu(scan.noise_covariance, 1)).max() > 0.1 * scale


def test_headers_say_what_was_scanned():
    scan = SimulatedScan((20, 24), coils=2, slices=3, repetitions=2)
    readouts = list(scan)
    heads = scan.heads()
    assert len(readouts) == len(heads)
    assert all(a.data.shape == (2, 48) for a in readouts)
    imaging = heads[heads["flags"] & np.uint64(NOISE) == 0]
    order = np.stack([imaging["idx"][c] for c in ("repetition", "slice", "kspace_encode_step_1")])
    assert np.array_equal(order, np.indices((2, 3, 20)).reshape(3, -1))

    def flagged(flag):
        return np.flatnonzero(imaging["flags"] & np.uint64(flag_bits(flag))).tolist()

    assert flagged(7) == list(range(0, 120, 20))
    assert flagged(8) == list(range(19, 120, 20))
    assert flagged(14) == [59, 119]
    assert flagged(25) == [119]
    assert sorted(set(imaging["position"][:, 2].tolist())) == [-5, 0, 5]


def test_noise_differs_between_repetitions_and_comes_back_with_the_seed():
    scan = SimulatedScan((16, 16), coils=2, repetitions=2, seed=4)
    first, again = list(scan), list(SimulatedScan((16, 16), coils=2, repetitions=2, seed=4))
    assert first == again
    assert not np.array_equal(first[-1].data, first[-17].data)


def test_a_coil_sees_best_what_lies_near_it():
    axis = np.arange(-100.0, 101, 10)
    maps = np.abs(loop_sensitivities(axis, axis, 0.0, 8))
    for coil, angle in enumerate(2 * np.pi * (np.arange(8) + 0.5) / 8):
        near = [round(10 + 7 * f(angle)) for f in (np.sin, np.cos)]
        far = [round(10 - 7 * f(angle)) for f in (np.sin, np.cos)]
        assert maps[coil, near[0], near[1]] > 3 * maps[coil, far[0], far[1]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"matrix": (8, 64)}, "matrix 8: expected 16 to 1024"),
        ({"coils": 0}, "coils 0"),
        ({"slices": 31}, "slices 31"),
        ({"snr": 0}, "snr 0"),
        ({"snr": np.nan}, "snr nan"),
    ],
)
def test_refusals(arguments, words):
    with pytest.raises(InputError, match=words):
        SimulatedScan(**arguments)
