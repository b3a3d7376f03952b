"""Monitor the memory of a node or server during a long stream of frames.

    python tests/helpers/soak.py MINUTES [HOST:PORT PID]

spawns the node as Gadgetron does, or connects to a running server; without a sampler, to measure
the stream only. Prints frames and resident memory, and the memory of the middle and last thirds.
"""

import socket
import sys
import threading
import time

import ismrmrd
import numpy as np
from peer import CLOSE, IMAGE, WAVEFORM, Peer, Server
from synthetic import acquisitions, header, letter, noise_readout

SHAPE, COILS = (32, 32), 4
INTERVAL = 5.0  # seconds between lines


def resident(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


def feed(peer, deadline, sent):
    """Send a dynamic scan: repetitions of two slices, with a waveform between frames."""
    frames = [acquisitions(letter(*SHAPE), coils=COILS, noise=0.01, slice=s) for s in range(2)]
    waveform = ismrmrd.Waveform.from_array(np.zeros((5, 40), np.uint32))
    peer.send_acquisitions([noise_readout(0.01, coils=COILS)])
    while time.monotonic() < deadline:
        for readouts in frames:
            for readout in readouts:
                readout.idx.repetition = sent[0] // 2 % 65536
            peer.send_acquisitions(readouts)
            peer.send(WAVEFORM, waveform.to_bytes())
            sent[0] += 1
    peer.send(CLOSE)


def drain(peer, received):
    while (number := peer.unpack("<H")[0]) != CLOSE:
        if number == WAVEFORM:
            head = ismrmrd.WaveformHeader.from_buffer_copy(peer.read(40))
            peer.read(4 * head.channels * head.number_of_samples)
        else:
            assert number == IMAGE, number
            head = ismrmrd.ImageHeader.from_buffer_copy(peer.read(198))
            peer.read(peer.unpack("<Q")[0])
            peer.read(4 * np.prod(head.matrix_size) * head.channels)
            received[0] += 1


def soak(peer, pid, minutes, report=sys.stdout.write):
    """Stream and return frames sent, images received and the memory (MiB) per line."""
    begin = time.monotonic()
    sent, received, memory = [0], [0], []
    feeding = threading.Thread(target=feed, args=(peer, begin + 60 * minutes, sent))
    draining = threading.Thread(target=drain, args=(peer, received))
    feeding.start()
    draining.start()
    while draining.is_alive():
        draining.join(INTERVAL)
        if feeding.is_alive():
            memory.append(resident(pid))
            report(
                f"{time.monotonic() - begin:6.0f} s {sent[0]:7d} frames sent "
                f"{received[0]:7d} images {memory[-1]:7.1f} MiB\n"
            )
    return sent[0], received[0], memory


def main(minutes, address=None, pid=None):
    if address is None:
        peer = Server("reconstruct_acquisitions")
        pid = peer.process.pid
        threading.Thread(target=peer.process.stderr.read, daemon=True).start()
    else:
        host, _, port = address.rpartition(":")
        peer = Peer(socket.create_connection((host, int(port))))
    peer.start(header(*SHAPE), sampler="none")  # a server acts as a node
    with peer:
        sent, received, memory = soak(peer, pid, minutes)
    third = len(memory) // 3
    first, last = np.mean(memory[third : 2 * third]), np.mean(memory[2 * third :])
    sys.stdout.write(
        f"{sent} frames, {received} images; memory {first:.1f} MiB in the middle third, "
        f"{last:.1f} MiB in the last\n"
    )


if __name__ == "__main__":
    main(float(sys.argv[1]), *sys.argv[2:])
