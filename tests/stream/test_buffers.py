"""ReconData to frames, as the gadgets of config/score_recon_generic.xml fill it."""

import io

import ismrmrd
import numpy as np
import peer
import pytest
import synthetic
from synthetic import acquisitions, header, letter, parsed

from gadgets.stages.buffers import frames_of_buffers, read_recon_data
from gadgets.stages.properties import Properties

SHAPE = (24, 20)


def received(*payloads):
    """ReconData as it comes out of the wire."""
    return [read_recon_data(io.BytesIO(payload)) for payload in payloads]


def reference(image, block, **counters):
    lines = acquisitions(image, steps=block, **counters)
    for line in lines:
        line.set_flag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
    return lines


def test_a_reference_scan_after_repetitions_serves_the_frames_that_waited():
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


def test_a_frame_whose_reference_scan_came_before_is_not_kept_waiting():
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
def test_a_partial_echo_that_asymmetric_echo_adjust_centred(accelerated):
    """BucketToBufferGadget crops the readouts to what was acquired unless the scan is accelerated.

    Either way the sampling limits count on the readout as it is whole.
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
