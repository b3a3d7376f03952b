"""Frames that cannot be sampled are sent as classical images with the reason."""

import logging

import numpy as np
import pytest
from synthetic import acquisitions, header, letter, noise_readout, parsed

import gadgets.stages.posterior
from gadgets.score_recon import images as image_stream
from gadgets.stages.accumulate import accumulate
from gadgets.stages.properties import Properties
from gadgets.stream.turns import Turns
from scoremri_core.errors import InputError

SHAPE = (24, 20)
IMAGE = letter(*SHAPE)


class Shrinking:
    """A fast prior."""

    name = "shrinking"

    def denoise(self, x, sigma):
        return x / (1 + sigma.reshape(-1, 1, 1) ** 2)


def sent(readouts, xml=None, **properties):
    """Return the mean images after a check that all are finite."""
    defaults = {"samples": 2, "steps": 3, "prior": Shrinking(), "device": "cpu"}
    node = Properties(**{**defaults, **properties, "outputs": ("mean",)})
    frames = list(accumulate(readouts, parsed(xml or header(*SHAPE)), node))
    images = list(image_stream([frames], node))
    assert len(images) == len(frames)
    assert all(np.isfinite(image.data).all() for image in images)
    return images


def scan(**counters):
    return acquisitions(IMAGE, noise=0.01, **counters)


def like(image, truth=IMAGE):
    return np.corrcoef(image.data.ravel(), truth.ravel())[0, 1] > 0.9


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def dead(channels):
    readout = noise_readout(0.01)
    readout.data[channels] = 0
    return readout


def spoilt(value):
    readout = noise_readout(0.01)
    readout.data[1, 7] = value
    return readout


NOISE_SCANS = {
    "all channels are dead": (dead(slice(None)), "all samples of the noise scan are zero"),
    "of three channels": (noise_readout(0.01, coils=3), "no noise readout of 4 channels"),
    "fewer samples than channels": (noise_readout(0.01, samples=3), "3 samples for 4 channels"),
    "hardly more": (noise_readout(0.01, samples=9), "9 samples for 4 channels"),
    "not a number": (spoilt(np.nan), "not finite"),
    "infinite": (spoilt(np.inf), "not finite"),
    "of no dwell time": (noise_readout(0.01, dwell=np.inf), "dwell-time ratio"),
}


@pytest.mark.parametrize("coils", [0, 3])
@pytest.mark.parametrize("kind", NOISE_SCANS)
def test_invalid_noise_scan_is_reported_once_and_noise_is_estimated(kind, coils, caplog):
    readout, message = NOISE_SCANS[kind]
    images = sent([readout, *scan(slice=0), *scan(slice=1)], coils=coils)
    assert [image.slice for image in images] == [0, 1]
    for image in images:
        assert "fallback" not in image.meta
        assert 0.005 < float(image.meta["sigma_thermal"]) < 0.03
        assert like(image)
    (sentence,) = [w for w in warnings(caplog) if "oise is estimated from the data" in w]
    assert message in sentence


@pytest.mark.parametrize("kind", NOISE_SCANS)
def test_invalid_noise_scan_with_noise_scan_marks_the_frame(kind):
    readout, message = NOISE_SCANS[kind]
    (image,) = sent([readout, *scan()], noise="scan")
    assert message in image.meta["fallback"]
    assert "noise=scan" in image.meta["fallback"]
    assert like(image)


@pytest.mark.parametrize("noise", ["auto", "scan"])
@pytest.mark.parametrize("alive", [True, False])
def test_dead_channel_of_the_noise_scan_is_not_noise_free(noise, alive, caplog):
    readouts = scan()
    if not alive:
        for readout in readouts:
            readout.data[2] = 0
    (image,) = sent([dead([2]), *readouts], noise=noise)
    assert "fallback" not in image.meta
    assert float(image.meta["sigma_thermal"]) == pytest.approx(0.01 / np.sqrt(0.8), rel=0.1)
    assert like(image)
    assert len([w for w in warnings(caplog) if "noise scan of channel 2 is empty" in w]) == 1


def test_duplicate_channels_with_singular_covariance():
    readout = noise_readout(0.01)
    readout.data[1] = readout.data[0]
    readouts = scan()
    for line in readouts:
        line.data[1] = line.data[0]
    (image,) = sent([readout, *readouts])
    assert like(image)


@pytest.mark.parametrize("lines", [1, 5, 24])
def test_nonfinite_lines_are_unsampled(lines):
    readouts = scan()
    for readout in readouts[::2][:lines]:
        readout.data[1, 3] = np.nan
    for readout in readouts if lines == 24 else []:
        readout.data[0, 0] = np.inf
    (image,) = sent(readouts)
    if lines == 24:
        assert "no measured sample" in image.meta["fallback"]
    else:
        assert "fallback" not in image.meta
        assert like(image)


@pytest.mark.parametrize("factor", [1e4, 1e25])
def test_noise_scan_louder_than_the_data_is_rejected(factor, caplog):
    readout = noise_readout(0.01)
    readout.data[:] *= np.float32(factor)
    (image,) = sent([readout, *scan()])
    assert "fallback" not in image.meta
    assert like(image)
    assert any("the largest sample is" in w for w in warnings(caplog))
    (image,) = sent([readout, *scan()], noise="scan")
    assert "noise=scan: the noise scan has sd" in image.meta["fallback"]
    assert like(image)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_noise_scan_that_is_too_quiet_loses_no_frame():
    for factor in (1e-8, 1e-25):
        readout = noise_readout(0.01)
        readout.data[:] *= np.float32(factor)
        (image,) = sent([readout, *scan()])
        assert like(image)


@pytest.mark.parametrize("noise", ["auto", "estimate", 0.01])
@pytest.mark.parametrize("coils", [0, 2])
def test_zero_readouts_give_a_zero_image(noise, coils):
    readouts = scan()
    for readout in readouts:
        readout.data[:] = 0
    (image,) = sent([noise_readout(0.01), *readouts], noise=noise, coils=coils)
    assert image.meta["fallback"]
    assert not image.data.any()


def test_one_failing_frame_does_not_affect_its_batch(monkeypatch, caplog):
    run = gadgets.stages.posterior._run

    def fail(frames, properties, prior, *rest):
        if any(frame.header.idx.slice == 1 for frame in frames):
            raise np.linalg.LinAlgError("no convergence")
        return run(frames, properties, prior, *rest)

    monkeypatch.setattr(gadgets.stages.posterior, "_run", fail)
    monkeypatch.setattr(Turns, "batches", lambda self, batches, *_: (b for b in batches))
    images = sent([r for n in range(3) for r in scan(slice=n)])
    assert [image.slice for image in images] == [0, 1, 2]
    assert ["fallback" in image.meta for image in images] == [False, True, False]
    assert images[1].meta["fallback"] == "LinAlgError: no convergence"
    assert all(map(like, images))
    assert "slice 1" in caplog.text
    assert "cannot be sampled: LinAlgError: no convergence" in caplog.text


@pytest.mark.parametrize("factor", [1, 1e30, 1e-30])
def test_last_fallback_is_root_sum_of_squares(monkeypatch, factor):
    def fail(*_):
        raise RuntimeError("always")

    monkeypatch.setattr(gadgets.stages.posterior, "_run", fail)
    readouts = scan()
    for readout in readouts:
        readout.data[:] *= factor
    (image,) = sent(readouts, noise=0.01)
    assert image.meta["fallback"]
    np.testing.assert_allclose(image.data[0, 0] / factor, IMAGE, atol=0.1)


def test_failing_prior_loses_no_frame():
    class Broken:
        name = "broken"

        def denoise(self, x, sigma):
            return x[:1, 1:]

    (image,) = sent(scan(), prior=Broken())
    assert "prior broken" in image.meta["fallback"]
    assert like(image)


def test_invalid_sampler_options_are_refused_before_the_first_frame():
    with pytest.raises(InputError, match="steps"):
        sent(scan(), steps=0)
    with pytest.raises(InputError, match="device"):
        sent(scan(), device="cuda:77")


def volume(partitions, of):
    """Return the readouts of the first partitions of a volume (z, y, x)."""
    depth = np.arange(of) - of // 2
    readouts = []
    for partition in range(partitions):
        wave = np.exp(-2j * np.pi * depth * depth[partition] / of) / np.sqrt(of)
        image = np.tensordot(wave, np.stack([IMAGE] * of), 1)
        readouts += acquisitions(image, noise=0.01, last=False, kspace_encode_step_2=partition)
    return readouts


@pytest.mark.parametrize("sampler", ["posterior", "none"])
@pytest.mark.parametrize("partitions", [1, 3, 5, 7])
def test_incomplete_volume_is_sent(partitions, sampler):
    (image,) = sent(volume(partitions, 8), header(*SHAPE, ez=8), sampler=sampler)
    assert image.data.shape == (1, 8, *SHAPE)
    if partitions > 4:  # the centre of k-space among them
        middle = image.data[0, 2:6].mean(0)
        correlation = np.corrcoef(middle.ravel(), IMAGE.ravel())[0, 1]
        assert correlation > (0.95 if sampler == "none" else 0.6)
