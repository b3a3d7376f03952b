"""One connection to the server: a client with a scan, or a Gadgetron server with one node."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import ismrmrd
from gadgetron.external import constants

from gadgets.protocol import wire
from gadgets.protocol.chain import Chain
from gadgets.protocol.connection import NodeConnection, describe, run_target
from gadgets.protocol.documents import read_header
from gadgets.protocol.wire import ChainError, Endpoint, StreamEnded
from gadgets.service.host import run_chain
from gadgets.service.shared import Shared
from scoremri_core.errors import InputError
from scoremri_core.scans.documents import parse

logger = logging.getLogger(__name__)

WRITERS = {
    "ImageWriter": ismrmrd.Image,
    "WaveformWriter": ismrmrd.Waveform,
    "AcquisitionWriter": ismrmrd.Acquisition,
}


@dataclass
class Session:
    """One connection, from its first byte to its CLOSE.

    Attributes
    ----------
    endpoint : of the peer.
    name : of the connection, for the log.
    shared : what all sessions have in common.
    chains : folder of further chains that a client may name, or None.
    started : whether a scan has begun.
    """

    endpoint: Endpoint
    name: str
    shared: Shared
    chains: str | None = None
    started: bool = False

    def run(self) -> bool:
        """Serve the connection to its end; says whether all went well."""
        begin = time.monotonic()
        self._counts: Counter[str] = Counter()
        try:
            ended = self._run()
        except OSError as error:
            if not self.endpoint.received:
                logger.debug("%s: closed without a message", self.name)
                self.endpoint.abandon()
                return True
            logger.warning("%s: the peer went away: %s", self.name, error)
            ended = False
        except Exception as error:  # one connection must not end the server
            logger.error("%s: %s", self.name, describe(error))
            logger.debug("%s", self.name, exc_info=error)
            self._tell(error)
            ended = False
        finally:
            self.endpoint.close()
        logger.info(
            "%s: closed after %.1f s, %s",
            self.name,
            time.monotonic() - begin,
            ", ".join(f"{count} {kind}" for kind, count in self._counts.items()) or "no scan",
        )
        return ended

    def _run(self) -> bool:
        config: Chain | str | Exception = ChainError("a header came before a configuration")
        while True:
            number = wire.message_id(self.endpoint, patient=False)
            if number == constants.GADGET_MESSAGE_CLOSE:
                self.endpoint.finished = True
                return True  # a client that only asked, for instance for stored noise
            if number == constants.GADGET_MESSAGE_FILENAME:
                config = self._named(wire.read_config_name(self.endpoint))
            elif number == constants.GADGET_MESSAGE_CONFIG:
                config = self._sent(wire.read_document(self.endpoint, wire.CONFIGURATION))
            elif number == constants.GADGET_MESSAGE_QUERY:
                self._answer()
            elif number == constants.GADGET_MESSAGE_TEXT:
                wire.read_text(self.endpoint)
            elif number == constants.GADGET_MESSAGE_HEADER:
                break
            else:
                raise ChainError(
                    f"a message with id {number} came before a configuration and a header"
                )
        header = wire.read_document(self.endpoint, wire.HEADER)
        self.started = True
        if isinstance(config, str):
            return self._node(config, header)
        return self._scan(config, header)

    def _named(self, name: str) -> Chain | Exception:
        # What is wrong is told with the header: until then, a client may only want to ask.
        try:
            return Chain.served(name, self.chains)
        except InputError as error:
            return error

    def _sent(self, xml: str) -> Chain | str | Exception:
        """A chain; or, as it is, the `<configuration>` of one node of a Gadgetron server."""
        try:
            root = parse(xml, "the configuration") if xml.strip() else None
            if root is None or (root.tag == "configuration" and root.find("stream") is None):
                return xml
            return Chain("the chain that came", xml).checked(self.chains)
        except InputError as error:
            return error

    def _answer(self) -> None:
        _, correlation = constants.uint64.unpack(self.endpoint.read(8)), self.endpoint.read(8)
        query = wire.read_text(self.endpoint, constants.uint64)
        answer = b"scoremri" if query == "gadgetron::info" else b"unknown query"
        number = constants.GadgetMessageIdentifier.pack(constants.GADGET_MESSAGE_RESPONSE)
        size = constants.uint64.pack(len(answer))
        self.endpoint.write(number + bytes(correlation) + size + answer)

    def _node(self, config: str, header: str) -> bool:
        from gadgets.score_recon import reconstruct

        logger.info("%s: a node of a Gadgetron server", self.name)
        self._counts["node"] = 1
        try:
            connection = NodeConnection(
                self.endpoint.socket, config, header, stall=self.endpoint.stall, shared=self.shared
            )
        except InputError as error:
            wire.write_error(self.endpoint, str(error))
            raise
        return run_target(reconstruct, self.name, connection) is None

    def _scan(self, config: Chain | Exception, header: str) -> bool:
        stream = _Stream(self.endpoint, self._counts)
        failure: Exception | None = None
        try:
            if isinstance(config, Exception):
                raise config
            logger.info("%s: a scan through %s", self.name, config.name)
            read_header(header)  # what is wrong with it is told before anything starts
            accepted = tuple(WRITERS[name] for name in config.writers() if name in WRITERS)
            with contextlib.closing(run_chain(config, header, stream, self.shared)) as items:
                for item in items:
                    if isinstance(item, accepted):
                        wire.write_item(self.endpoint, item)
                        self._counts[f"{type(item).__name__.lower()}s sent"] += 1
        except InputError as error:
            if isinstance(stream.error, StreamEnded):
                raise stream.error from error
            failure = error
            logger.error("%s: %s", self.name, error)
            self._tell(error)
            self.started = False  # a server that stops need not wait for the rest,
            self.endpoint.patient = False  # nor anyone for long
        # A client that still sends would lose our words if we closed now.
        stream.drain()
        return failure is None

    def _tell(self, error: Exception) -> None:
        with contextlib.suppress(OSError):
            wire.write_text(self.endpoint, f"{wire.FAILED}{describe(error)}")


class _Stream:
    """What a client sends, until its CLOSE: for a thread that feeds a chain, then for another."""

    def __init__(self, endpoint: Endpoint, counts: Counter[str]) -> None:
        self.error: Exception | None = None
        self._endpoint = endpoint
        self._counts = counts
        self._ended = False
        self._lock = threading.Lock()

    def __iter__(self) -> _Stream:
        return self

    def __next__(self) -> Any:
        with self._lock:
            while not self._ended:
                try:
                    item = wire.read_message(self._endpoint)
                except Exception as error:
                    self._ended, self.error = True, error
                    raise
                if item is None:
                    self._ended = True
                elif not isinstance(item, str):
                    self._counts[f"{type(item).__name__.lower()}s received"] += 1
                    return item
            raise StopIteration

    def drain(self) -> None:
        """Drop what still comes, until CLOSE or an end without it."""
        with contextlib.suppress(InputError, OSError):
            for _ in self:
                pass
