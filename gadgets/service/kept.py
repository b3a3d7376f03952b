"""A deferred scan, in a folder that survives a restart of the server."""

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

FETCH = "score_recon_fetch"  # chain name that fetches the images
PREFIX = "scan_"  # of folder names
PROMISE, IMAGES, FETCHED = "promise.json", "images.mrd", "fetched"


def measurement_id(header: ismrmrdHeader) -> str:
    """Return the measurementID of an ISMRMRD header, empty if missing."""
    information = header.measurementInformation
    return ((information and information.measurementID) or "").strip()


@dataclass(eq=False)
class Kept:
    """A deferred scan.

    Attributes
    ----------
    measurement : str
        measurementID of the ISMRMRD header.
    chain : Chain
        Chain to run.
    folder : Path
        Holds the acquisitions, then the images.
    attempts, failures : int
        Attempts to compute the images, and those in which a node reported an error.
    images : list
        Images, when `done` is set.
    error : Exception or None
        Reason for no images, when `done` is set.
    made : float
        System time at which `done` was set.
    fetched : bool
        Whether a client has received all images.
    timer : threading.Timer or None
        Expires the images.
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
        """Create a scan with an empty folder, readable only by the user."""
        return cls(measurement, chain, Path(tempfile.mkdtemp(prefix=PREFIX, dir=root)))

    @classmethod
    def found(cls, folder: Path) -> Kept:
        """Load a scan from the folder of an earlier server.

        Raises
        ------
        InputError
            The scan is incomplete or damaged.
        """
        try:
            saved = json.loads((folder / PROMISE).read_text())
            chain = Chain(saved["name"], saved["xml"])
            kept = cls(saved["measurement"], chain, folder, int(saved["attempts"]))
            if saved["error"] is not None:
                kept.error = InputError(saved["error"])
                kept.made = (folder / PROMISE).stat().st_mtime
            elif (folder / IMAGES).exists():
                kept.images = _read(folder / IMAGES)
                kept.made = (folder / IMAGES).stat().st_mtime
            elif kept.recording is None:
                raise InputError("no acquisitions or images")
        except FileNotFoundError as error:
            raise InputError("the scan was incomplete") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"damaged ({error})") from error
        if kept.made:
            kept.done.set()
        return kept

    @property
    def recording(self) -> Path | None:
        """Path of the acquisitions, None if they could not be written."""
        files = self.folder.glob("*.h5")
        return next((path for path in files if ".partial" not in path.suffixes), None)

    @property
    def fetched(self) -> bool:
        """Whether a client has received all images."""
        return (self.folder / FETCHED).exists()

    def mark(self, image: ismrmrd.Image) -> None:
        """Announce the posterior images in the attributes of an image."""
        meta = image.meta
        notice = f"{FETCH} has the posterior images of measurement {self.measurement}"
        meta["later"] = notice.encode("ascii", "replace").decode()
        image.meta = meta

    def promise(self) -> None:
        """Save the state, so that a restarted server computes the images.

        Raises
        ------
        OSError
        """
        saved = {
            "measurement": self.measurement,
            "name": self.chain.name,
            "xml": self.chain.xml,
            "attempts": self.attempts,
            "error": None if self.error is None else str(self.error),
        }
        with replacing(self.folder / PROMISE) as partial:
            partial.write_text(json.dumps(saved))

    def finish(self, images: list[Any]) -> None:
        """Save the images and remove the acquisitions."""
        self.images = images
        try:
            with replacing(self.folder / IMAGES) as partial:
                _write(partial, images)
        except (OSError, InputError) as error:
            logger.warning(
                "measurement %s: keeping the images in memory: %s", self.measurement, error
            )
        else:
            self._remove_acquisitions()
        self._end()

    def fail(self, error: Exception) -> None:
        """Save the reason for no images."""
        self.error = error
        try:
            self.promise()
        except (OSError, InputError) as other:
            logger.debug("measurement %s: %s", self.measurement, other)
        self._remove_acquisitions()
        self._end()

    def hand_out(self) -> None:
        """Record that a client has received all images."""
        try:
            (self.folder / FETCHED).touch()
        except OSError as error:
            logger.debug("measurement %s: %s", self.measurement, error)

    def drop(self) -> None:
        """Remove the folder."""
        if self.timer is not None:
            self.timer.cancel()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _remove_acquisitions(self) -> None:
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
