"""One scan of which images were promised, in a folder that a server finds again."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import ismrmrd
from ismrmrd.xsd import ismrmrdHeader

from gadgets.protocol.gadgetron import wire
from gadgets.protocol.gadgetron.chain import Chain
from gadgets.protocol.gadgetron.wire import Endpoint
from gadgets.service.pipe import Pipe
from scoremri_core.errors import InputError
from scoremri_core.paths import replacing

logger = logging.getLogger(__name__)

FETCH = "score_recon_fetch"  # the chain that a client names to fetch what was made
PREFIX = "scan_"  # of the folder of a scan
PROMISE, IMAGES, FETCHED = "promise.json", "images.mrd", "fetched"


def measurement_id(header: ismrmrdHeader) -> str:
    """The ID that tells a measurement from others; empty where the header has none."""
    information = header.measurementInformation
    return ((information and information.measurementID) or "").strip()


@dataclass(eq=False)
class Kept:
    """What becomes of one scan.

    Attributes
    ----------
    measurement : its ID in the ISMRMRD header.
    chain : to run.
    folder : holds its acquisitions until the images are made, then these.
    attempts : to make the images,
    failures : and those in which a node told what was wrong.
    images : once `done` is set,
    error : or why there are none.
    made : when they were, in seconds of the system's clock.
    fetched : whether a client has got all images.
    timer : ends it.
    """

    measurement: str
    chain: Chain
    folder: Path
    attempts: int = 0
    failures: int = 0
    images: list[Any] = field(default_factory=list)
    error: Exception | None = None
    made: float = 0.0
    done: threading.Event = field(default_factory=threading.Event)
    timer: threading.Timer | None = None

    @classmethod
    def new(cls, measurement: str, chain: Chain, root: Path) -> Kept:
        """Begin with an empty folder of its own, for this user alone."""
        return cls(measurement, chain, Path(tempfile.mkdtemp(prefix=PREFIX, dir=root)))

    @classmethod
    def found(cls, folder: Path) -> Kept:
        """What an earlier server left in a folder.

        Raises
        ------
        InputError
            Where it promised nothing, or what it left is not whole.
        """
        try:
            said = json.loads((folder / PROMISE).read_text())
            chain = Chain(said["name"], said["xml"])
            kept = cls(said["measurement"], chain, folder, int(said["attempts"]))
            if said["error"] is not None:
                kept.error = InputError(said["error"])
                kept.made = (folder / PROMISE).stat().st_mtime
            elif (folder / IMAGES).exists():
                kept.images = _read(folder / IMAGES)
                kept.made = (folder / IMAGES).stat().st_mtime
            elif kept.recording is None:
                raise InputError("neither acquisitions nor images are there")
        except FileNotFoundError as error:
            raise InputError("its scan was not over") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"it is damaged ({error})") from error
        if kept.made:
            kept.done.set()
        return kept

    @property
    def recording(self) -> Path | None:
        """File of its acquisitions, if they could be written."""
        files = self.folder.glob("*.h5")
        return next((path for path in files if ".partial" not in path.suffixes), None)

    @property
    def fetched(self) -> bool:
        """Whether a client has got all images."""
        return (self.folder / FETCHED).exists()

    def mark(self, image: ismrmrd.Image) -> None:
        """Say on an image that there will be others."""
        meta = image.meta
        told = f"{FETCH} has the posterior images of measurement {self.measurement}"
        meta["later"] = told.encode("ascii", "replace").decode()
        image.meta = meta

    def promise(self) -> None:
        """Write down what is to be made, so that a server which starts anew makes it.

        Raises
        ------
        OSError
        """
        said = {
            "measurement": self.measurement,
            "name": self.chain.name,
            "xml": self.chain.xml,
            "attempts": self.attempts,
            "error": None if self.error is None else str(self.error),
        }
        with replacing(self.folder / PROMISE) as partial:
            partial.write_text(json.dumps(said))

    def finish(self, images: list[Any]) -> None:
        """Take the images, write them, and let the acquisitions go."""
        self.images = images
        try:
            with replacing(self.folder / IMAGES) as partial:
                _write(partial, images)
        except (OSError, InputError) as error:
            logger.warning("measurement %s: images stay in memory: %s", self.measurement, error)
        else:
            self._let_go()
        self._end()

    def fail(self, error: Exception) -> None:
        """Say that there will be no images, and why."""
        self.error = error
        try:
            self.promise()
        except (OSError, InputError) as other:
            logger.debug("measurement %s: %s", self.measurement, other)
        self._let_go()
        self._end()

    def hand_out(self) -> None:
        """Note that a client has got all images."""
        try:
            (self.folder / FETCHED).touch()
        except OSError as error:
            logger.debug("measurement %s: %s", self.measurement, error)

    def drop(self) -> None:
        """Remove all that is kept."""
        if self.timer is not None:
            self.timer.cancel()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _let_go(self) -> None:
        for path in self.folder.glob("*.h5"):
            path.unlink(missing_ok=True)

    def _end(self) -> None:
        self.made = time.time()
        self.done.set()


def _write(path: Path, images: list[Any]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        endpoint = Endpoint(cast(socket.socket, Pipe(descriptor, descriptor)))
        for image in images:
            wire.write_item(endpoint, image)
        wire.write_close(endpoint)
    finally:
        os.close(descriptor)


def _read(path: Path) -> list[Any]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        endpoint = Endpoint(cast(socket.socket, Pipe(descriptor, descriptor)))
        return list(iter(lambda: wire.read_message(endpoint), None))
    finally:
        os.close(descriptor)
