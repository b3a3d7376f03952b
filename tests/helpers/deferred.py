"""Count deferred scans while clients, nodes and servers are killed at random moments.

    python tests/helpers/deferred.py [SCANS [SEED [FOLDER]]]

Each scan is sent to `scoremri serve` until its images are promised, and then fetched until they
are complete. Meanwhile servers are killed (SIGKILL) and restarted, clients are killed while they
send and fetch, and the node of every third scan sometimes disconnects. Prints the numbers of scans
that were retrieved, duplicated, wrong or lost, with the messages of lost ones.
"""

import contextlib
import json
import logging
import math
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from forked import FORKS
from synthetic import acquisitions, header, letter

SHAPE = (24, 20)
OUTPUTS = 2  # images of a scan: one series of two slices
CLIENTS = 4  # at once
KILLED = 0.25  # fraction of clients
VANISHES = 0.2  # fraction of those nodes
SERVER_SECONDS = 3.0  # mean lifetime of a server
MAX_ATTEMPTS = 60  # per scan


def named(number):
    information = (
        f"<measurementInformation><measurementID>scan {number}</measurementID>"
        "<patientPosition>HFS</patientPosition></measurementInformation><acquisitionSystem"
    )
    return header(*SHAPE).replace("<acquisitionSystem", information, 1)


def scan(number):
    """Return the readouts of a scan that depends on its number."""
    image = (1 + number) * letter(*SHAPE)
    options = {"coils": 2, "noise": 0.01, "seed": number}
    return [r for slice in range(2) for r in acquisitions(image, slice=slice, **options)]


def chain(number, **properties):
    from gadgets.protocol.gadgetron.chain import Chain

    shipped = Chain.load("score_recon.xml").with_properties(
        {"sampler": "none", "outputs": "mean", **properties}
    )
    if number % 3:
        return shipped
    return Chain("vanishing.xml", shipped.xml.replace("gadgets.score_recon", "deferred"))


def reconstruct_acquisitions(connection):
    """Run the node, which sometimes disconnects within its scan."""
    from gadgets import score_recon

    if random.random() < VANISHES:
        end = connection.socket.socket
        timer = threading.Timer(0.05 * random.random(), end.shutdown, [socket.SHUT_RDWR])
        timer.start()
    score_recon.reconstruct_acquisitions(connection)


def serve(port, folder):
    """Run a server in this process."""
    os.setsid()
    random.seed()
    sys.path.insert(0, str(Path(__file__).parent))
    from gadgets.commands import main

    with open(folder / "server.log", "a") as log:
        os.dup2(log.fileno(), 2)
    main(
        [
            *("serve", "--port", str(port), "--keep-in", str(folder / "later")),
            *("--chains", str(folder / "chains"), "--keep", "100"),
        ]
    )


def client(port, number, fetches, verdict):
    """Run a client in this process and write the result to the file `verdict`."""
    from gadgets.service.client import run_remote
    from gadgets.service.host import run_chain
    from scoremri_core.errors import InputError

    logging.disable()
    address = f"127.0.0.1:{port}"
    try:
        if not fetches:
            asked = chain(number, later="true")
            images = list(run_remote(address, asked, named(number), scan(number)))
            assert len(images) == OUTPUTS
            assert all("later" in image.meta for image in images)
            os._exit(0)
        images = list(run_remote(address, "score_recon_fetch", named(number), []))
    except InputError as error:
        message = str(error)
        known = ("no images of", f"measurement 'scan {number}':")
        if not fetches or not any(k in message for k in known) or "ask again" in message:
            os._exit(1)
        found = {"lost": message}
    else:
        whole = chain(1, later="false").without("later")  # of a node that stays connected
        expected = list(run_chain(whole, named(number), scan(number)))
        same = [
            len(images) == len(expected)
            and np.array_equal(one.data, other.data)
            and one.slice == other.slice
            for one, other in zip(images, expected, strict=False)
        ]
        found = {"images": len(images), "right": bool(same) and all(same)}
    partial = verdict.with_suffix(".partial")
    partial.write_text(json.dumps(found))
    os.replace(partial, verdict)
    os._exit(0)


class Site:
    """Server that is killed and restarted, and clients that are killed."""

    def __init__(self, folder, seed, kills):
        self.folder = folder
        self.kills = kills
        self.chance = random.Random(seed)
        self.counts = Counter()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        (folder / "chains").mkdir()
        (folder / "chains" / "vanishing.xml").write_text(chain(0).xml)
        self._stopped = threading.Event()
        self._start()
        self._killer = threading.Thread(target=self._kill_servers)
        self._killer.start()

    def _start(self):
        self.server = FORKS.Process(target=serve, args=(self.port, self.folder))
        self.server.start()

    def _kill_servers(self):
        while self.counts["servers killed"] < self.kills:
            while not self._serves():
                if self._stopped.wait(0.1):
                    return
            if self._stopped.wait(self.chance.expovariate(1 / SERVER_SECONDS)):
                return
            self.server.kill()
            self.server.join()
            self.counts["servers killed"] += 1
            self._start()

    def _serves(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def send_out(self, number, fetches, verdict):
        """Run a client and return its exit code, None if it was killed."""
        process = FORKS.Process(target=client, args=(self.port, number, fetches, verdict))
        process.start()
        self.counts["clients"] += 1
        if self.chance.random() < KILLED:
            process.join(0.4 * self.chance.random())
            if process.is_alive():
                process.kill()
                self.counts["clients killed"] += 1
        process.join()
        return None if process.exitcode == -signal.SIGKILL else process.exitcode

    def retrieve(self, number):
        """Send and fetch a scan and return the result."""
        verdict = self.folder / f"verdict_{number}.json"
        for fetches in (False, True):
            for _ in range(MAX_ATTEMPTS):
                if self.send_out(number, fetches, verdict) == 0:
                    break
                time.sleep(0.2)
        if not verdict.exists():
            return {"lost": "no images and no message"}
        return json.loads(verdict.read_text())

    def close(self):
        self._stopped.set()
        self._killer.join()
        self.server.terminate()
        self.server.join(60)


def count(scans, seed=0, folder=None, kills=math.inf, report=sys.stdout.write):
    """Send scans and return counts and the messages of lost scans."""
    with contextlib.ExitStack() as ends:
        folder = folder or Path(ends.enter_context(tempfile.TemporaryDirectory()))
        site = Site(Path(folder), seed, kills)
        with contextlib.closing(site), ThreadPoolExecutor(CLIENTS) as pool:
            found = {}
            for number, verdict in enumerate(pool.map(site.retrieve, range(scans))):
                found[number] = verdict
                if (number + 1) % 20 == 0:
                    report(f"{number + 1} scans, {dict(site.counts)}\n")
        log = (site.folder / "server.log").read_text()
        left = len(list((site.folder / "later").glob("scan_*/*.partial.h5")))
    counts = site.counts
    counts["nodes vanished"] = log.count("ended early")
    counts["retried"] = log.count("retrying: ")
    counts["retrieved"] = sum("lost" not in each and each["right"] for each in found.values())
    counts["wrong"] = sum(not each.get("right", True) for each in found.values())
    counts["twice"] = sum(each.get("images", 0) > OUTPUTS for each in found.values())
    counts["unfinished recordings left"] = left
    lost = {number: each["lost"] for number, each in found.items() if "lost" in each}
    counts["lost"] = len(lost)
    counts["lost and logged"] = sum(f"scan {n} are lost" in log for n in lost)
    return counts, lost


def main(scans=480, seed=0, folder=None):
    begin = time.monotonic()
    counts, lost = count(int(scans), int(seed), folder)
    for name, number in counts.items():
        sys.stdout.write(f"{name}: {number}\n")
    for number, message in lost.items():
        sys.stdout.write(f"scan {number} is lost: {message}\n")
    sys.stdout.write(f"{time.monotonic() - begin:.0f} s\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
