import socket
import struct
import threading
import time

import ismrmrd
import numpy as np
import peer
import pytest
import synthetic
from peer import Server, shows_that_threads_sleep
from synthetic import acquisitions, header, letter

from gadgets.process import WAIT_VARIABLES
from gadgets.protocol.gadgetron import wire

SHAPE = (48, 40)


def resemblance(image, truth):
    return np.corrcoef(image.ravel(), truth.ravel())[0, 1]


def test_acquisitions_over_the_wire(monkeypatch):
    for name in WAIT_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_DISPLAY_ENV", "true")
    truth = letter(*SHAPE)
    scan = [synthetic.noise_readout(0.002)]
    for number in range(2):
        scan += acquisitions(
            truth, oversampling=2, noise=0.002, slice=number, repetition=3, contrast=1, seed=number
        )
    with Server("reconstruct_acquisitions") as node:
        node.start(header(*SHAPE, oversampling=2), sampler="none", series=5)
        node.send_acquisitions(scan)
        node.send(peer.CLOSE)
        images = node.images()
        assert node.process.wait(20) == 0
        shows_that_threads_sleep(node.process.stderr.read())
    assert len(images) == 2
    for number, (head, pixels, meta) in enumerate(images):
        assert tuple(head.matrix_size) == (40, 48, 1)
        np.testing.assert_allclose(pixels[0], truth, atol=0.12)
        assert resemblance(pixels[0], truth) > 0.98
        assert (head.slice, head.repetition, head.contrast) == (number, 3, 1)
        assert (head.image_series_index, head.image_index) == (5, number + 1)
        assert head.image_type == ismrmrd.IMTYPE_MAGNITUDE
        assert tuple(head.field_of_view) == (120, 96, 5)
        assert tuple(head.position) == (1.5, -2.5, 3.5 + number)
        assert tuple(head.read_dir) == (0, 1, 0)
        assert tuple(head.phase_dir) == (0, 0, 1)
        assert tuple(head.slice_dir) == (1, 0, 0)
        assert tuple(head.patient_table_position) == (0, 0, -100)
        assert head.measurement_uid == 42
        assert head.acquisition_time_stamp == 1000 + SHAPE[0] // 2
        assert meta["sampler"] == "none"
        assert meta["Keep_image_geometry"] == "1"
        assert float(meta["sigma_thermal"]) == pytest.approx(0.002 / np.sqrt(0.8), rel=0.1)
        assert float(meta["sigma_n"]) >= float(meta["sigma_thermal"])
        assert "fallback" not in meta


def test_recon_data_over_the_wire():
    truth = letter(*SHAPE)
    block, center = range(10, 34), 20
    imaging = acquisitions(truth, steps=range(0, 44, 2), center=center, noise=0.002, slice=1)
    reference = acquisitions(truth, steps=block, center=center, noise=0.002, slice=1)
    for line in reference:
        line.set_flag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
    with Server("reconstruct_buffers") as node:
        node.start(
            header(*SHAPE, oversampling=2, center=center, last=43, mode="embedded"),
            sampler="none",
        )
        data = peer.buffer_of(imaging, SHAPE[0], center)
        node.send(
            peer.RECON_DATA,
            peer.recon_data(data, peer.buffer_of(reference, SHAPE[0], center)),
        )
        node.send(peer.CLOSE)
        ((head, pixels, meta),) = node.images()
        assert node.process.wait(20) == 0
    assert (head.slice, head.image_series_index, head.image_index) == (1, 1, 1)
    assert tuple(head.position) == (1.5, -2.5, 4.5)
    assert resemblance(pixels[0], truth) > 0.97
    assert "fallback" not in meta


def test_recon_data_with_a_separate_reference():
    truth, block = letter(*SHAPE), range(12, 36)
    imaging = acquisitions(truth, steps=range(0, 48, 2), noise=0.002)
    reference = acquisitions(truth, steps=block, noise=0.002)
    for line in reference:
        line.set_flag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
    # Separate mode: as many rows as reference lines, the first at row 0.
    shifted = peer.buffer_of(reference, len(block), len(block) // 2 + block[0])
    with Server("reconstruct_buffers") as node:
        node.start(header(*SHAPE, oversampling=2, mode="separate"), sampler="none")
        node.send(peer.RECON_DATA, peer.recon_data(peer.empty_buffer(), shifted))
        data = peer.buffer_of(imaging, SHAPE[0], SHAPE[0] // 2)
        node.send(peer.RECON_DATA, peer.recon_data(data))
        node.send(peer.CLOSE)
        ((_, pixels, meta),) = node.images()
    assert resemblance(pixels[0], truth) > 0.97
    assert "fallback" not in meta


def test_waveforms_pass_through_unchanged():
    waveform = ismrmrd.Waveform.from_array(
        np.arange(12, dtype=np.uint32).reshape(2, 6), waveform_id=3, time_stamp=77
    )
    with Server("reconstruct_acquisitions") as node:
        node.start(header(*SHAPE), sampler="none")
        node.send(peer.WAVEFORM, waveform.to_bytes())
        node.send_acquisitions(acquisitions(letter(*SHAPE), noise=0.01))
        node.send(peer.CLOSE)
        received = node.receive()
    assert [number for number, _ in received] == [peer.WAVEFORM, peer.IMAGE]
    assert received[0][1] == waveform


def bad_scans():
    centre = range(SHAPE[0] // 2 - 6, SHAPE[0] // 2 + 6)
    lines = [step for step in range(0, SHAPE[0], 3) if step not in centre]
    yield "no calibration lines", acquisitions(letter(*SHAPE), noise=0.01, steps=lines)
    fewer = acquisitions(letter(*SHAPE), noise=0.01)
    fewer[0] = acquisitions(letter(*SHAPE), coils=3, steps=[0], last=False)[0]
    yield "3 channels, expected 4", fewer


def test_invalid_frames_are_marked_and_the_stream_goes_on():
    scan, reasons = [], []
    for number, (reason, readouts) in enumerate(bad_scans()):
        for readout in readouts:
            readout.idx.slice = number
        reasons.append(reason)
        scan += readouts
    scan += acquisitions(letter(*SHAPE), noise=0.01, slice=9)
    with Server("reconstruct_acquisitions") as node:
        node.start(header(*SHAPE), sampler="none")
        node.send_acquisitions(scan)
        node.send(peer.CLOSE)
        images = node.images()
    assert [head.slice for head, _, _ in images] == [0, 1, 9]
    for (_, pixels, meta), reason in zip(images, reasons, strict=False):
        assert reason in meta["fallback"]
        assert reason in meta["ImageComment"]
        assert np.isfinite(pixels).all()
        assert pixels.max() > 0
    assert "fallback" not in images[-1][2]


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"sampel": "8"}, "unknown property 'sampel' (did you mean 'samples'?): known"),
        ({"samples": "none"}, "property samples='none': expected a whole number"),
    ],
)
def test_an_invalid_property_is_reported_by_message_8(properties, message):
    with Server("reconstruct_acquisitions") as node:
        node.start(header(*SHAPE), **properties)
        # More than a socket buffers: the node must not lose its words by closing over it.
        node.send_acquisitions(acquisitions(letter(*SHAPE), coils=32, samples=2000))
        # An error that comes while input flows often ends Gadgetron's process.
        wait_until_logged(node, message)
        node.hears_nothing()
        node.send_acquisitions(acquisitions(letter(*SHAPE)))
        node.send(peer.CLOSE)
        ((number, text),) = node.receive()
        assert number == peer.ERROR
        assert message in text
        node.process.wait(20)
        assert "Traceback" in node.process.stderr.read()


def wait_until_logged(node, words):
    for line in node.process.stderr:
        if words in line:
            break


def test_an_unknown_message_is_reported_by_message_8():
    with Server("reconstruct_acquisitions") as node:
        node.start(header(*SHAPE))
        node.send(1234)
        ((number, text),) = node.receive()
    assert number == peer.ERROR
    assert "id 1234" in text


def test_a_non_cartesian_header_is_reported_by_message_8():
    with Server("reconstruct_acquisitions") as node:
        node.start(header(*SHAPE, trajectory="spiral"))
        wait_until_logged(node, "trajectory spiral")
        node.hears_nothing()
        node.send(peer.CLOSE)
        ((number, text),) = node.receive()
    assert number == peer.ERROR
    assert "trajectory spiral" in text


@pytest.mark.parametrize("target", ["reconstruct_acquisitions", "reconstruct_buffers"])
@pytest.mark.parametrize("partial", [b"", struct.pack("<H", 1008) + bytes(100), b"\xf0"])
def test_the_process_ends_when_the_peer_vanishes(target, partial):
    with Server(target) as node:
        node.start(header(*SHAPE))
        if target == "reconstruct_acquisitions":
            node.send_acquisitions(acquisitions(letter(*SHAPE), last=False)[:20])
        node.socket.sendall(partial)
        time.sleep(0.5)
        node.socket.close()
        started = time.monotonic()
        assert node.process.wait(5) != 0
        assert time.monotonic() - started < 5


def test_the_process_ends_when_the_peer_vanishes_while_it_works():
    truth = letter(192, 192)
    with Server("reconstruct_acquisitions") as node:
        node.start(header(*truth.shape), sampler="none", noise="0.01")
        for number in range(3):
            node.send_acquisitions(acquisitions(truth, coils=12, noise=0.01, slice=number))
        time.sleep(1)
        node.socket.close()
        assert node.process.wait(5) != 0


@pytest.fixture
def pair():
    left, right = map(wire.Endpoint, socket.socketpair())
    yield left, right
    left.abandon()
    right.abandon()


def test_an_image_is_unchanged_by_the_wire(pair):
    left, right = pair
    image = ismrmrd.Image.from_array(np.random.default_rng(0).random((3, 4, 5), np.float32))
    image.meta = ismrmrd.Meta({"DataRole": "Image", "list": ["1", "2"]})
    wire.write_item(left, image)
    assert wire.read_message(right) == image


def test_too_large_sizes_are_refused_before_allocation(pair):
    left, right = pair
    head = ismrmrd.ImageHeader()
    head.data_type = ismrmrd.DATATYPE_FLOAT
    head.matrix_size[:] = (65535, 65535, 65535)
    head.channels = 65535
    left.write(struct.pack("<H", 1022) + bytes(head) + struct.pack("<Q", 0))
    with pytest.raises(wire.ChainError, match="too large"):
        wire.read_message(right)
    left.write(struct.pack("<HQ", 8, 1 << 60))
    with pytest.raises(wire.ChainError, match="was announced"):
        wire.read_message(right)


def test_close_is_sent_once_and_output_is_not_lost_with_unread_input(pair):
    left, right = pair
    left.write(bytes(1000))
    wire.write_error(right, "why")
    closing = threading.Thread(target=lambda: (right.close(), right.close()))
    closing.start()
    with pytest.raises(wire.ChainError, match="why"):
        wire.read_message(left)
    assert wire.read_message(left) is None
    with pytest.raises(wire.StreamEnded):
        left.read(1)
    left.abandon()
    closing.join(5)
    assert not closing.is_alive()
