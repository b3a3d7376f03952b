import re

import numpy as np
import pytest

from scoremri_core.errors import InputError
from scoremri_core.mri.fourier import to_image
from scoremri_core.mri.noise.covariance import covariance_from_scan
from scoremri_core.scans.flags import flag_bits
from scoremri_core.scans.gridding import zero_filled_kspace
from scoremri_core.simulation.receive_coils import loop_sensitivities
from scoremri_core.simulation.simulation import SimulatedScan

NOISE = flag_bits(19)


@pytest.mark.parametrize("matrix", [(48, 40), (33, 45)])
@pytest.mark.parametrize("oversampling", [1, 2])
def test_coil_combination_returns_the_truth(matrix, oversampling):
    scan = SimulatedScan(matrix, coils=4, slices=2, oversampling=oversampling, snr=1e5)
    images = to_image(zero_filled_kspace(scan))
    combined = np.sum(scan.coil_maps.conj() * images, axis=1)
    assert np.allclose(np.sum(np.abs(scan.coil_maps) ** 2, axis=1), 1, atol=1e-5)
    assert np.abs(combined - scan.image).max() < 1e-3 * np.abs(scan.image).max()


def test_noise_of_the_combination_matches_the_snr():
    scan = SimulatedScan((64, 64), coils=6, snr=20, seed=3)
    images = to_image(zero_filled_kspace(scan))
    noise = images - scan.coil_maps * scan.image[:, None]
    sd = np.sqrt(np.mean([noise.real**2, noise.imag**2]))
    assert sd == pytest.approx(1 / 20, rel=0.01)


def test_noise_scan_has_the_covariance_of_the_data():
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


def test_headers_describe_the_scan():
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


def test_volume_has_two_phase_encode_directions():
    scan = SimulatedScan((18, 16), coils=2, partitions=7, oversampling=1, snr=1e6, averages=2)
    kspace = np.zeros((2, 7, 18, 16), complex)
    for readout in scan:
        if not readout.flags & NOISE:
            idx = readout.idx
            kspace[:, idx.kspace_encode_step_2, idx.kspace_encode_step_1] += readout.data / 2
    images = np.moveaxis(to_image(kspace, (1, 2, 3)), 1, 0)
    assert scan.image.shape == (7, 18, 16)
    assert np.abs(images - scan.coil_maps * scan.image[:, None]).max() < 1e-3
    size = scan.header.encoding[0].encodedSpace.matrixSize
    assert (size.x, size.y, size.z) == (16, 18, 7)


def test_object_beyond_the_field_of_view_aliases():
    """With a field of view of half the head, each pixel is the sum of two or three."""
    small = SimulatedScan((24, 32), coils=2, fov=(96, 192), oversampling=1, snr=1e6)
    large = SimulatedScan((72, 32), coils=2, fov=(288, 192), oversampling=1, snr=1e6)
    parts = (large.coil_maps * large.image[:, None]).reshape(1, 2, 3, 24, 32)
    folded = to_image(zero_filled_kspace(small))
    assert np.abs(folded - parts.sum(2)).max() < 1e-3
    assert np.abs(parts[:, :, 0]).max() > 0.1
    assert np.abs(small.image - large.image[:, 24:48]).max() < 1e-4


def test_segments_and_backward_lines():
    scan = SimulatedScan((20, 16), coils=2, segments=3, slices=2, interleaved=True,
                         alternating=True)  # fmt: skip
    imaging = [a for a in scan if not a.flags & NOISE]
    order = [(a.idx.segment, a.idx.kspace_encode_step_1, a.idx.slice) for a in imaging]
    assert order == sorted((y % 3, y, s) for y in range(20) for s in range(2))
    plain = {
        (a.idx.slice, a.idx.kspace_encode_step_1): a.data
        for a in SimulatedScan((20, 16), coils=2, slices=2, snr=1e6)
        if not a.flags & NOISE
    }
    for a in imaging:
        back = a.is_flag_set(22)
        assert back == (a.idx.kspace_encode_step_1 % 2 == 1)
        forward = a.data[:, ::-1] if back else a.data
        clean = plain[a.idx.slice, a.idx.kspace_encode_step_1]
        assert np.abs(forward - clean).max() < 0.4  # of noise of 0.033


def test_noise_differs_between_repetitions_and_depends_on_the_seed():
    scan = SimulatedScan((16, 16), coils=2, repetitions=2, seed=4)
    first, again = list(scan), list(SimulatedScan((16, 16), coils=2, repetitions=2, seed=4))
    assert first == again
    assert not np.array_equal(first[-1].data, first[-17].data)


def test_gadgetron_finds_the_subject_and_the_coils():
    """As IsmrmrdContextVariables and NoiseAdjustGadget read them."""
    header = SimulatedScan((16, 16), coils=3, seed=5).header
    parts = re.fullmatch(
        "([^_]+)_([^_]+)_([^_]+)_([^_]+)", header.measurementInformation.measurementID
    )
    assert parts[2] == header.subjectInformation.patientID == "phantom5"
    labels = header.acquisitionSystemInformation.coilLabel
    assert [label.coilNumber for label in labels] == [0, 1, 2]
    assert len({label.coilName for label in labels}) == 3


def test_coils_are_most_sensitive_nearby():
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
        ({"partitions": 8, "slices": 2}, "slices 2: expected 1 in a 3D scan"),
        ({"averages": 0}, "averages 0"),
        ({"phase_oversampling": 0.5}, "phase oversampling 0.5: expected 1 to 4"),
        ({"recon_matrix": (8, 64)}, "recon matrix 8"),
        ({"fov": (0, 100)}, "fov 0x100"),
        ({"snr": 0}, "snr 0"),
        ({"snr": np.nan}, "snr nan"),
    ],
)
def test_refusals(arguments, words):
    with pytest.raises(InputError, match=words):
        SimulatedScan(**arguments)
