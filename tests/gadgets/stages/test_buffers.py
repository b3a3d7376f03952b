"""ReconData, as from the gadgets of config/score_recon_generic.xml, to frames."""

import io

import ismrmrd
import numpy as np
import peer
import pytest
import synthetic
from synthetic import acquisitions, header, letter, measured_noise, parsed

from gadgets.stages.buffers import frames_of_buffers, read_recon_data
from gadgets.stages.properties import Properties
from scoremri_core.mri.fourier import to_image

SHAPE = (24, 20)


def received(*payloads):
    """Return ReconData as read from the wire."""
    return [read_recon_data(io.BytesIO(payload)) for payload in payloads]


def reference(image, block, **counters):
    lines = acquisitions(image, steps=block, **counters)
    for line in lines:
        line.set_flag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
    return lines


def test_late_reference_scan_calibrates_the_waiting_frames():
    image, block = letter(*SHAPE), range(6, 18)
    imaging = [
        acquisitions(image, steps=range(0, 24, 2), slice=number, repetition=repetition)
        for repetition in range(2)
        for number in range(2)
    ]
    buffers = [peer.recon_data(peer.buffer_of(lines, 24, 12)) for lines in imaging]
    for number in range(2):
        lines = reference((number + 1) * image, block, slice=number, repetition=1)
        shifted = peer.buffer_of(lines, len(block), len(block) // 2 + block[0])
        buffers.append(peer.recon_data(peer.empty_buffer(), shifted))
    xml = parsed(header(*SHAPE, mode="separate"))
    frames = list(frames_of_buffers(received(*buffers), xml, Properties()))
    places = [(frame.header.idx.repetition, frame.header.idx.slice) for frame in frames]
    assert sorted(places) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    maps = synthetic.coil_maps(4, *SHAPE)
    for frame in frames:
        scale = frame.header.idx.slice + 1
        expected = scale * synthetic.kspace(maps * image, np.arange(24) - 12, np.arange(20) - 10)
        np.testing.assert_allclose(
            frame.kspace.calibration.array[:, block], expected[:, block], atol=1e-5
        )
        absent = np.setdiff1d(np.arange(24), block)
        assert not frame.kspace.calibration.array[:, absent].any()


def test_frame_after_its_reference_scan_does_not_wait():
    image = letter(*SHAPE)
    first = peer.recon_data(
        peer.buffer_of(acquisitions(image, steps=range(0, 24, 2)), 24, 12),
        peer.buffer_of(reference(image, range(6, 18)), 12, 12),
    )

    def stream():
        yield from received(first)
        pytest.fail("the frame waits for more")

    found = frames_of_buffers(stream(), parsed(header(*SHAPE, mode="separate")), Properties())
    assert next(found).kspace.calibration.array.any()


@pytest.mark.parametrize("accelerated", [False, True])
def test_partial_echo_centred_by_asymmetric_echo_adjust(accelerated):
    """BucketToBufferGadget crops readouts to the acquired part unless the scan is accelerated.

    The sampling limits refer to the full readout in both cases.
    """
    (ny, nx), missing = SHAPE, 6
    image = letter(ny, nx)
    lines = acquisitions(image)
    for line in lines:
        line.data[:, :missing] = 0
        line.discard_pre = missing
    data = np.stack([line.data for line in lines]).transpose(2, 0, 1)[:, :, None, :]
    data = data[..., None, None, None] if accelerated else data[missing:, ..., None, None, None]
    headers = np.empty((ny, 1, 1, 1, 1), object)
    for i, line in enumerate(lines):
        headers[i, 0, 0, 0, 0] = line.getHead()
    limits = [(missing, nx // 2, nx - 1), (0, ny // 2, ny - 1), (0, 0, 0)]
    payload = peer.recon_data(peer.recon_buffer(data, headers, limits))
    (frame,) = frames_of_buffers(received(payload), parsed(header(ny, nx)), Properties())
    expected = synthetic.kspace(
        synthetic.coil_maps(4, ny, nx) * image, np.arange(ny) - ny // 2, np.arange(nx) - nx // 2
    )
    assert not frame.kspace.array[..., :missing].any()
    np.testing.assert_allclose(
        frame.kspace.array[..., missing:], expected[..., missing:], atol=1e-5
    )


def without_oversampling(lines, points):
    """Remove oversampling as RemoveROOversamplingGadget, whose start is rounded down."""
    for line in lines:
        samples = line.data.shape[1]
        start = (samples - points) // 2
        image = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(line.data, axes=1), norm="ortho"), 1)
        image = np.fft.ifftshift(image[:, start : start + points], axes=1)
        data = np.fft.fftshift(np.fft.fft(image, norm="ortho"), axes=1)
        line.resize(points, line.active_channels)
        line.data[:] = data
        line.center_sample = line.center_sample * points // samples
    return lines


@pytest.mark.parametrize(("nx", "oversampling"), [(20, 2), (21, 2), (21, 3), (25, 2)])
def test_shift_of_odd_readouts_by_gadgetron_is_undone(nx, oversampling):
    """Only cropping from even to odd shifts."""
    ny = 24
    image = letter(ny, nx)
    lines = acquisitions(image, oversampling=oversampling)
    payload = peer.recon_data(peer.buffer_of(without_oversampling(lines, nx), ny, ny // 2))
    xml = parsed(header(ny, nx, oversampling=oversampling))
    (frame,) = frames_of_buffers(received(payload), xml, Properties())
    np.testing.assert_allclose(frame.kspace.array, synthetic.expected(image), atol=1e-4)


def test_fractional_readout_is_rounded_down_as_by_gadgetron():
    """17.67 of 40 samples fit the field of view: the gadget keeps 17."""
    ny, nx = SHAPE
    image = letter(ny, nx)
    lines = without_oversampling(acquisitions(image, oversampling=2), 17)
    payload = peer.recon_data(peer.buffer_of(lines, ny, ny // 2))
    xml = parsed(header(ny, nx, oversampling=2, gx=53, rx=18))
    (frame,) = frames_of_buffers(received(payload), xml, Properties())
    assert frame.kspace.values.shape == (4, ny, 17)
    assert frame.fov_fraction[-1] == pytest.approx(53 / 51)
    shown = np.linalg.norm(to_image(frame.kspace.array), axis=0)
    np.testing.assert_allclose(shown[:, :16], image[:, 2:18], atol=1e-3)


def test_odd_readouts_without_oversampling_are_not_shifted():
    image = letter(24, 21)
    payload = peer.recon_data(peer.buffer_of(acquisitions(image), 24, 12))
    (frame,) = frames_of_buffers(received(payload), parsed(header(24, 21)), Properties())
    np.testing.assert_allclose(frame.kspace.array, synthetic.expected(image), atol=1e-4)


@pytest.mark.parametrize(("sigma", "whitened"), [(1.0, True), (0.02, False), (30.0, False)])
def test_data_that_are_not_whitened_are_detected_at_the_edges(sigma, whitened, caplog):
    """Without a stored noise scan, NoiseAdjustGadget does not whiten and does not report it."""
    ny, nx = 48, 40
    lines = [acquisitions(40 * sigma * letter(ny, nx), noise=sigma, seed=s) for s in range(2)]
    payloads = [peer.recon_data(peer.buffer_of(each, ny, ny // 2)) for each in lines]
    frames = list(
        frames_of_buffers(received(*payloads), parsed(header(ny, nx)), Properties(noise="scan"))
    )
    assert len(frames) == 2
    for frame in frames:
        if whitened:
            np.testing.assert_allclose(measured_noise(frame), 2 * np.eye(4))
        else:
            assert frame.kspace.noise_covariance is None
    messages = [r.message for r in caplog.records if "noise=scan" in r.message]
    assert len(messages) == (not whitened)
    assert all("no noise scan was acquired or stored" in each for each in messages)


def test_line_with_fewer_channels_is_detected():
    """BucketToBufferGadget fills missing channels with arbitrary memory."""
    lines = acquisitions(letter(*SHAPE))
    lines[3].data[3] = 7
    whole = lines[3].getHead()
    short = type(whole).from_buffer_copy(whole)
    short.active_channels = 3
    payload = peer.recon_data(peer.buffer_of(lines, 24, 12)).replace(bytes(whole), bytes(short))
    (frame,) = frames_of_buffers(received(payload), parsed(header(*SHAPE)), Properties())
    assert "a readout has 3 channels, expected 4" in frame.problem
    assert not frame.kspace.array[:, 3].any()
