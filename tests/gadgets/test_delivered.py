"""The images of the stream equal those of `reconstruct` to the last bit."""

import h5py
import ismrmrd
import numpy as np
import pytest
from synthetic import acquisitions, coil_maps, header, letter, parsed

from gadgets.commands.replay import replay
from gadgets.stages.accumulate import accumulate
from gadgets.stages.properties import Properties
from scoremri_core import Reconstructor, reconstruct, reconstruct_volume
from scoremri_core.scans.files import write_scan
from scoremri_core.simulation.simulation import SimulatedScan
from scoremri_core.simulation.undersampling import accelerate

SHAPE, SIGMA = (48, 32), 0.004
UNDERSTATED = SIGMA / 3  # the calibration lines show more noise
LATTICE = sorted({*range(0, 48, 3), *range(16, 32)})
OPTIONS = {"samples": 2, "steps": 2, "device": "cpu"}


def lines(**options):
    return acquisitions(letter(*SHAPE), noise=SIGMA, **options)


def replayed(tmp_path, xml, readouts, **properties):
    """Return the mean images and the frames of the stream."""
    scan, images = tmp_path / "scan.h5", tmp_path / "images.h5"
    write_scan(scan, xml, readouts)
    asked = {**OPTIONS, "outputs": "mean", **properties}
    replay(scan, images, properties=[f"{k}={v}" for k, v in asked.items()])
    with h5py.File(images) as file:
        delivered = np.concatenate(file["dataset/image_1/data"][:])[:, 0]
        attributes = [ismrmrd.Meta.deserialize(a) for a in file["dataset/image_1/attributes"][:]]
    frames = list(accumulate(readouts, parsed(xml), Properties()))
    return delivered, attributes, frames


def agree(delivered, attributes, expected):
    np.testing.assert_array_equal(delivered, np.abs(expected.mean[0]))
    assert float(attributes["sigma_n"]) == pytest.approx(expected.info.sigma_n[0], rel=1e-5)
    assert attributes.get("fallback") == expected.info.reason


@pytest.mark.parametrize("sampler", ["posterior", "none"])
@pytest.mark.parametrize("noise", ["estimate", UNDERSTATED])
def test_a_slice(tmp_path, noise, sampler, caplog):
    readouts, xml = lines(steps=LATTICE), header(*SHAPE)
    (image,), (attributes,), (frame,) = replayed(
        tmp_path, xml, readouts, noise=noise, sampler=sampler
    )
    covariance = None if noise == "estimate" else 2 * noise**2 * np.eye(4)
    options = {**OPTIONS, "noise_covariance": covariance, "sampler": sampler}
    expected = reconstruct(frame.kspace.array, **options)
    agree(image, attributes, expected)
    raised = expected.info.sigma_n[0] / expected.info.sigma_thermal[0]
    assert noise == "estimate" or raised > 2
    stack = reconstruct(np.stack([frame.kspace.array, 3 * frame.kspace.array]), **options)
    np.testing.assert_array_equal(stack.mean[0], expected.mean[0])


def reference(scale=1.0, **counters):
    readouts = acquisitions(scale * letter(*SHAPE), steps=range(12, 36), noise=SIGMA, **counters)
    for readout in readouts:
        readout.set_flag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
    return readouts


@pytest.mark.parametrize("noise", ["estimate", UNDERSTATED])
def test_separate_reference_scan_of_several_frames(tmp_path, noise):
    """Frames with a centre show more than the given noise, frames without do not."""
    readouts = reference(7.0)
    for repetition, steps in enumerate([range(0, 48, 2), LATTICE, range(1, 48, 2)]):
        readouts += lines(steps=steps, repetition=repetition, seed=repetition)
    images, attributes, frames = replayed(
        tmp_path, header(*SHAPE, mode="separate"), readouts, noise=noise
    )
    covariance = None if noise == "estimate" else 2 * noise**2 * np.eye(4)
    kept = Reconstructor(noise_covariance=covariance, **OPTIONS)
    kept.calibrate(frames[0].kspace.calibration.array)
    assert len(frames) == 3
    for image, meta, frame in zip(images, attributes, frames, strict=True):
        seed = int(meta["frame_seed"])
        alone = reconstruct(
            frame.kspace.array,
            calibration=frame.kspace.calibration.array,
            noise_covariance=covariance,
            seed=seed,
            **OPTIONS,
        )
        agree(image, meta, alone)
        np.testing.assert_array_equal(kept(frame.kspace.array, seed=seed).mean, alone.mean)


@pytest.mark.parametrize(
    ("noise", "complete", "sampler"),
    [
        ("estimate", "readouts", "none"),
        (UNDERSTATED, "readouts", "posterior"),
        ("estimate", "partitions", "posterior"),
        (UNDERSTATED, "partitions", "none"),
    ],
)
def test_a_volume(tmp_path, noise, complete, sampler):
    scan = SimulatedScan((18, 16), 3, partitions=10, snr=60, oversampling=1)
    axis = {"readouts": "both", "partitions": "phase"}[complete]
    thinned = accelerate(scan, "equispaced", 2, 8, axis)
    readouts = list(thinned)
    path = tmp_path / "scan.h5"
    write_scan(path, thinned.header, readouts)
    images = tmp_path / "images.h5"
    asked = {**OPTIONS, "outputs": "mean", "noise": noise, "sampler": sampler}
    replay(path, images, properties=[f"{k}={v}" for k, v in asked.items()])
    with h5py.File(images) as file:
        delivered = file["dataset/image_1/data"][0, 0]
    (frame,) = accumulate(readouts, thinned.header, Properties(noise="estimate"))
    covariance = None if noise == "estimate" else 2 * noise**2 * np.eye(3)
    expected = reconstruct_volume(
        frame.kspace.array, noise_covariance=covariance, sampler=sampler, **OPTIONS
    )
    np.testing.assert_array_equal(delivered, np.abs(expected.mean))


def test_frames_do_not_depend_on_their_batch():
    """Also if one slice aliases and needs two sets of maps."""
    rng = np.random.default_rng(0)
    stack = []
    for n, steps in enumerate([LATTICE, range(0, 48), sorted({*range(1, 48, 4), *range(14, 34)})]):
        kspace = np.zeros((4, *SHAPE), np.complex64)
        image = letter(*SHAPE) * coil_maps(4, *SHAPE)
        if n == 1:
            image = image + np.roll(image[::-1], 20, axis=1)
        full = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, axes=(1, 2))), axes=(1, 2)) / 44
        noise = rng.normal(size=(2, *full.shape))
        kspace[:, list(steps)] = (full + SIGMA * (noise[0] + 1j * noise[1]))[:, list(steps)]
        stack.append(kspace)
    together = reconstruct(np.stack(stack), **OPTIONS)
    for i, kspace in enumerate(stack):
        alone = reconstruct(kspace, **OPTIONS)
        np.testing.assert_array_equal(together.mean[i], alone.mean[0])
        np.testing.assert_array_equal(together.maps[i, : alone.maps.shape[1]], alone.maps[0])
