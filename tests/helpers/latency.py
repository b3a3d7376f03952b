"""Measure the latency of images, from the last line of their frame, at a steady load.

    python tests/helpers/latency.py [SIDE [COILS [SECONDS_BETWEEN_FRAMES ...]]]

spawns the node as Gadgetron does, with the default sampler. Frames of SIDE x SIDE (R = 4) are sent
every SECONDS_BETWEEN_FRAMES, by default 2 to 0.5 times the time of one frame. The latency grows if
frames are sent faster than they are sampled.
"""

import sys
import threading
import time

import ismrmrd
import numpy as np
from peer import CLOSE, IMAGE, Server
from synthetic import acquisitions, header, letter

FRAMES = 10


def latencies(side, coils, pause, frames=FRAMES):
    """Return the seconds from the last line of each frame to its first image."""
    readouts = acquisitions(letter(side, side), coils=coils, noise=0.01)
    middle = side // 2
    kept = [
        r
        for r in readouts
        if r.idx.kspace_encode_step_1 % 4 == middle % 4
        or abs(r.idx.kspace_encode_step_1 - middle) < 12
    ]
    ended, arrived = {}, {}
    with Server("reconstruct_acquisitions") as node:
        threading.Thread(target=node.process.stderr.read, daemon=True).start()

        def feed():
            for frame in range(frames):
                for line in kept:
                    line.idx.repetition = frame
                    line.clear_flag(ismrmrd.ACQ_LAST_IN_SLICE)
                kept[-1].set_flag(ismrmrd.ACQ_LAST_IN_SLICE)
                node.send_acquisitions(kept)
                ended[frame] = time.monotonic()
                time.sleep(pause)
            node.send(CLOSE)

        node.start(header(side, side))
        feeding = threading.Thread(target=feed)
        feeding.start()
        while (number := node.unpack("<H")[0]) != CLOSE:
            assert number == IMAGE, number
            head = ismrmrd.ImageHeader.from_buffer_copy(node.read(198))
            node.read(node.unpack("<Q")[0])
            node.read(4 * np.prod(head.matrix_size) * head.channels)
            arrived.setdefault(head.repetition, time.monotonic())
        feeding.join()
    return [arrived[frame] - ended[frame] for frame in range(frames)]


def main(side=128, coils=8, *pauses):
    cold = latencies(side, coils, 0.0, 1)[0]
    sys.stdout.write(f"single frame: {cold:.2f} s, with the start of the node\n")
    for pause in pauses or [cold * factor for factor in (2, 1, 0.75, 0.5)]:
        found = latencies(side, coils, pause)
        sys.stdout.write(
            f"a frame every {pause:.2f} s: latency "
            + " ".join(f"{seconds:.2f}" for seconds in found)
            + " s\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *map(float, sys.argv[3:]))
