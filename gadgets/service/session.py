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
from gadgetron.external.connection import Connection

from gadgets.protocol import wire
from gadgets.protocol.chain import Chain, UnknownChain
from gadgets.protocol.connection import NodeConnection, describe, run_target, tell
from gadgets.protocol.documents import read_header
from gadgets.protocol.wire import ChainError, Endpoint, StreamEnded
from gadgets.service.choice import choose
from gadgets.service.host import checked, run_chain
from gadgets.service.shared import Shared
from gadgets.stages.buffers import read_recon_data
from scoremri_core.errors import InputError
from scoremri_core.scans.documents import parse

logger = logging.getLogger(__name__)

WRITERS = {
    "ImageWriter": ismrmrd.Image,
    "WaveformWriter": ismrmrd.Waveform,
    "AcquisitionWriter": ismrmrd.Acquisition,
}
READERS = {  # of what a Gadgetron server sends to a node
    **Connection._default_readers(),
    **wire.READERS,
    constants.GADGET_MESSAGE_RECON_DATA: read_recon_data,
}
MAX_WORDS = 1000  # characters of a sentence that repeats what a client sent


@dataclass
class Session:
    """One connection, from its first byte to its CLOSE.

    Attributes
    ----------
    endpoint : of the peer.
    name : of the connection, for the log.
    shared : what all sessions have in common.
    chains : folder of further chains that a client may name, or None.
    default : chain for clients that name one which is not known, or None to refuse them.
    started : whether a scan is under way.
    scanned : whether there was one.
    """

    endpoint: Endpoint
    name: str
    shared: Shared
    chains: str | None = None
    default: Chain | None = None
    started: bool = False
    scanned: bool = False
    _is_node: bool = False  # of a Gadgetron server, which must not be sent a TEXT

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
                config = self._sent(wire.read_config_name(self.endpoint), named=True)
            elif number == constants.GADGET_MESSAGE_CONFIG:
                config = self._sent(wire.read_document(self.endpoint, wire.CONFIGURATION))
                self._is_node = isinstance(config, str)
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
        self.started = self.scanned = True
        if isinstance(config, str):
            return self._node(config, header)
        return self._scan(config, header)

    def _named(self, name: str) -> Chain:
        return Chain.served(name, self.chains)

    def _sent(self, text: str, named: bool = False) -> Chain | str | Exception:
        """A chain by name or as XML; or the `<configuration>` of one node of a Gadgetron server.

        What is wrong is told with the header: until then, a client may only want to ask.
        """
        try:
            if named or (text.strip() and "<" not in text):  # as FIRE's customconfig may come
                return self._named(text.strip())
            root = parse(text, "the configuration") if text.strip() else None
            if root is None or (root.tag == "configuration" and root.find("stream") is None):
                return text
            return Chain("the chain that came", text).checked(self.chains)
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
        connection = NodeConnection(
            self.endpoint.socket, config, header, stall=self.endpoint.stall, shared=self.shared
        )
        return run_target(reconstruct, self.name, connection) is None

    def _scan(self, config: Chain | Exception, header: str) -> bool:
        stream = _Stream(self.endpoint, self._counts)
        failure: Exception | None = None
        try:
            chain = self._chosen(config, header, stream)
            logger.info("%s: a scan through %s", self.name, chain.name)
            accepted = tuple(WRITERS[name] for name in chain.writers() if name in WRITERS)
            with contextlib.closing(run_chain(chain, header, stream, self.shared)) as items:
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

    def _chosen(self, config: Chain | Exception, header: str, stream: _Stream) -> Chain:
        if isinstance(config, Chain):
            checked(config, self.shared)
        elif not isinstance(config, UnknownChain):
            raise config
        elif self.default is None and not self.endpoint.comes():
            raise config  # a text that names another did not follow
        read_header(header)  # all is told at once, before a scanner has sent anything
        text = stream.opening()
        if text is not None:
            logger.info("%s: the client says: %s", self.name, _words(text))
        return choose(
            config, text, self._note, named=self._named, default=self.default, shared=self.shared
        )

    def _note(self, sentence: str) -> None:
        """Tell a client whose scan goes on."""
        logger.warning("%s: %s", self.name, _words(sentence))
        wire.write_text(self.endpoint, _words(sentence))

    def _tell(self, error: Exception) -> None:
        """Tell the peer that its scan failed."""
        with contextlib.suppress(OSError):
            if self._is_node:
                self.endpoint.in_step = self.started
                tell(self.endpoint, READERS, error)
            else:
                wire.write_text(self.endpoint, _words(f"{wire.FAILED}{describe(error)}"))


def _words(text: str) -> str:
    """A text that may hold what a client sent, as one line of bounded length."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= MAX_WORDS else f"{line[:MAX_WORDS]} ..."


class _Stream:
    """What a client sends, until its CLOSE: for a thread that feeds a chain, then for another."""

    def __init__(self, endpoint: Endpoint, counts: Counter[str]) -> None:
        self.error: Exception | None = None
        self._endpoint = endpoint
        self._counts = counts
        self._ended = False
        self._first: Any = None  # read already
        self._lock = threading.Lock()

    def __iter__(self) -> _Stream:
        return self

    def opening(self) -> str | None:
        """The text that the stream begins with, if it begins with one."""
        with self._lock:
            item = self._read()
            if isinstance(item, str):
                return item
            self._first = item
            return None

    def __next__(self) -> Any:
        with self._lock:
            item, self._first = self._first, None
            while item is None or isinstance(item, str):
                if self._ended:
                    raise StopIteration
                item = self._read()
            self._counts[f"{type(item).__name__.lower()}s received"] += 1
            return item

    def _read(self) -> Any:
        try:
            item = wire.read_message(self._endpoint)
        except Exception as error:
            self._ended, self.error = True, error
            raise
        self._ended = item is None
        return item

    def drain(self) -> None:
        """Drop what still comes, until CLOSE or an end without it."""
        with contextlib.suppress(InputError, OSError):
            for _ in self:
                pass
