"""Turns, outbox and read-ahead of a node."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from synthetic import acquisitions, header, letter, parsed

from gadgets.score_recon import images as image_stream
from gadgets.stages.accumulate import accumulate
from gadgets.stages.frame import Frame
from gadgets.stages.properties import Properties
from gadgets.stream.outbox import Abandoned, Outbox
from gadgets.stream.read_ahead import read_ahead
from gadgets.stream.turns import Turns


def frames(count):
    made = [Frame.__new__(Frame) for _ in range(count)]
    for number, frame in enumerate(made):
        frame.index = number
    return made


def test_turns_are_first_come_first_served():
    turns, order, threads = Turns(), [], []

    def wants(name):
        with turns.turn():
            order.append(name)

    with turns.turn():
        for name in range(5):
            threads.append(threading.Thread(target=wants, args=(name,)))
            threads[-1].start()
            while turns.waiting <= name:
                time.sleep(0.001)
    for thread in threads:
        thread.join(5)
    assert order == list(range(5))
    assert turns.waiting == 0


def test_frames_are_batched_if_no_other_scan_waits():
    batch = ["waveform", *frames(3)]
    assert [len(part) for part in Turns().batches([batch], lambda: None)] == [4]
    alone = Turns().batches([batch], lambda: None, Frame, together=False)
    assert [len(part) for part in alone] == [2, 1, 1]
    batch = ["waveform", *frames(4), "waveform", *frames(2)]
    few = Turns().batches([batch], lambda: None, Frame, most=2)  # the first frame does not wait
    assert [len(part) for part in few] == [2, 2, 3, 1]


def test_parallel_frames_equal_sequential_ones(monkeypatch):
    """On a CPU without a sampler, with other items in between, to the last bit."""
    readouts = [r for n in range(6) for r in acquisitions((n + 1) * letter(24, 20), slice=n)]
    properties = Properties(sampler="none", device="cpu")

    def images(threads):
        monkeypatch.setattr("scoremri_core.threads.threads", lambda: threads)
        scan = list(accumulate(readouts, parsed(header(24, 20)), properties))
        waiting = [[*scan[:2], "waveform", *scan[2:]]]
        return list(image_stream(waiting, properties))

    for one, other in zip(images(1), images(3), strict=True):
        if isinstance(one, str):
            assert one == other
        else:
            assert (one.slice, one.meta) == (other.slice, other.meta)
            np.testing.assert_array_equal(one.data, other.data)
    kinds = [item if isinstance(item, str) else item.slice for item in images(3)]
    assert kinds == [0, 1, "waveform", 2, 3, 4, 5]


def test_first_image_on_a_cpu_does_not_wait_for_other_frames(monkeypatch):
    from scoremri_core.recon import reconstruction

    calls, reconstruct = [], reconstruction.reconstruct_slices

    def counted(slices, *args, **options):
        calls.append(len(slices))
        return reconstruct(slices, *args, **options)

    monkeypatch.setattr(reconstruction, "reconstruct_slices", counted)
    scan = [r for n in range(16) for r in acquisitions(letter(24, 20), slice=n)]
    properties = Properties(sampler="none", device="cpu")
    waiting = [list(accumulate(scan, parsed(header(24, 20)), properties))]
    images = image_stream(waiting, properties)
    assert next(images).slice == 0
    assert calls == [1]
    assert [image.slice for image in images] == list(range(1, 16))


def test_two_scans_alternate():
    turns, order = Turns(), []
    start = threading.Barrier(2)

    def scan(name, count):
        start.wait(5)
        for part in turns.batches([[frame] for frame in frames(count)], lambda: None):
            order.append(name)
            assert len(part) == 1
            time.sleep(0.02)

    threads = [threading.Thread(target=scan, args=each) for each in (("a", 8), ("b", 3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    last = len(order) - order[::-1].index("b")
    assert last <= 7  # of 11: between two frames of b is at most one of a


def test_turn_ends_if_its_scan_fails():
    turns = Turns()
    parts = turns.batches([frames(1)], lambda: None)
    next(parts)
    parts.close()
    with turns.turn():
        assert turns.waiting == 0


def test_full_outbox_accepts_the_rest_of_a_frame_only():
    outbox, made = Outbox(limit=2), []

    def images():
        for frame in range(3):
            outbox.wait_for_room()
            for image in range(3):
                made.append((frame, image))
                yield frame, image

    outbox.fill(images())
    taken = iter(outbox)
    assert next(taken) == (0, 0)
    time.sleep(0.1)
    assert len(made) == 3
    assert [*taken] == [(frame, image) for frame in range(3) for image in range(3)][1:]


def test_outbox_raises_the_error_after_the_preceding_items():
    def images():
        yield 1
        raise RuntimeError("out of luck")

    outbox = Outbox()
    outbox.fill(images())
    taken = iter(outbox)
    assert next(taken) == 1
    with pytest.raises(RuntimeError, match="out of luck"):
        next(taken)


def test_abandoned_outbox_stops_the_computation():
    outbox, stopped = Outbox(limit=1), threading.Event()

    def images():
        try:
            while True:
                outbox.wait_for_room()
                yield 1
        except (Abandoned, GeneratorExit):
            stopped.set()
            raise

    outbox.fill(images())
    taken = iter(outbox)
    next(taken)
    taken.close()
    assert stopped.wait(5)


def test_reading_pauses_at_the_limit_with_a_log_message(caplog):
    read = []

    def items():
        for number in range(20):
            read.append(number)
            yield number

    with caplog.at_level("INFO"):
        batches = read_ahead(items(), limit=4)
        deadline = time.monotonic() + 5
        while "reading is paused" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert len(read) == 5  # four wait, one is being passed
    got = [*batches]
    assert [number for batch in got for number in batch] == list(range(20))
    assert max(map(len, got)) <= 4


def test_error_of_reading_follows_the_items_read():
    def items():
        yield 1
        raise ValueError("bad")

    batches = read_ahead(items())
    got = []
    with pytest.raises(ValueError, match="bad"):
        got.extend(number for batch in batches for number in batch)
    assert got in ([], [1])  # a generator expression drops its items


def test_loss_of_the_peer_is_reported_at_once():
    losses = []

    def items():
        yield from range(3)
        raise ConnectionError("gone")

    batches = iter(read_ahead(items(), on_loss=losses.append))
    deadline = time.monotonic() + 5
    while not losses:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(ConnectionError, match="gone"):
        next(batches)


def test_node_starts_without_heavy_imports():
    stages = "accumulate, buffers, coil_maps, emit, posterior, properties"
    heavy = "torch scipy.sparse matplotlib sigpy numba skimage nibabel cupy"
    code = f"""
import sys
from gadgets import score_recon
from gadgets.stages import {stages}
from gadgets.stream import capture
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(heavy.split()) & set(done.stdout.split())
