"""A connection to the server: a client with a scan, or a Gadgetron server with one node."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import ismrmrd
from gadgetron.external import constants
from gadgetron.external.connection import Connection

from gadgets.protocol.gadgetron import wire
from gadgets.protocol.gadgetron.chain import Chain, UnknownChain
from gadgets.protocol.gadgetron.connection import NodeConnection, describe, run_target, tell
from gadgets.protocol.gadgetron.documents import read_header
from gadgets.protocol.gadgetron.wire import ChainError, Endpoint, StreamEnded
from gadgets.service.choice import LATER, check_properties, choose, is_deferred
from gadgets.service.host import run_chain
from gadgets.service.incoming import Incoming
from gadgets.service.kept import FETCH, Kept, measurement_id
from gadgets.service.later import Later
from gadgets.service.shared import Shared
from gadgets.stages.buffers import read_recon_data
from gadgets.stream.capture import capture
from gadgets.threads import log_context
from scoremri_core.errors import InputError
from scoremri_core.scans.documents import parse

logger = logging.getLogger(__name__)

WRITERS = {
    "ImageWriter": ismrmrd.Image,
    "WaveformWriter": ismrmrd.Waveform,
    "AcquisitionWriter": ismrmrd.Acquisition,
}
READERS = {  # for messages of a Gadgetron server to a node
    **Connection._default_readers(),
    **wire.READERS,
    constants.GADGET_MESSAGE_RECON_DATA: read_recon_data,
}
WAIT_SECONDS = 10.0  # interval of messages to a client that fetches
MAX_TEXT = 1000  # characters


@dataclass
class Session:
    """A connection, from its first byte to CLOSE.

    Attributes
    ----------
    endpoint : Endpoint
        Connection to the peer.
    name : str
        Name of the connection, for the log.
    shared : Shared
        State shared by all sessions.
    chains : str or None
        Folder of additional chains.
    default : Chain or None
        Chain for unknown names; None refuses them.
    later : Later
        Deferred scans.
    refusal : str or None
        Reason to refuse a scan.
    started, scanned : bool
        Whether a scan is in progress, and whether there was one.
    """

    endpoint: Endpoint
    name: str
    shared: Shared
    chains: str | None = None
    default: Chain | None = None
    later: Later = field(default_factory=Later)
    refusal: str | None = None
    started: bool = False
    scanned: bool = False
    _has_header: bool = False
    _fetches: bool = False
    _is_node: bool = False  # Gadgetron does not accept TEXT messages from a node

    def run(self) -> bool:
        """Serve the connection to its end and return whether it succeeded."""
        with log_context(self.name):
            return self._serve()

    def _serve(self) -> bool:
        begin = time.monotonic()
        self._counts: Counter[str] = Counter()
        try:
            ended = self._run()
        except OSError as error:
            if not self.endpoint.received:
                logger.debug("%s: closed without a message", self.name)
                self.endpoint.abandon()
                return True
            logger.warning("%s: the peer disconnected: %s", self.name, error)
            ended = False
        except Exception as error:  # must not end the server
            logger.error("%s: %s", self.name, describe(error))
            logger.debug("%s", self.name, exc_info=error)
            self._report_failure(error)
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
        config: Chain | str | Exception = ChainError("header before configuration")
        while True:
            number = wire.message_id(self.endpoint, patient=False)
            if number == constants.GADGET_MESSAGE_CLOSE:
                self.endpoint.finished = True
                return True  # query only, for example for stored noise
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
                    f"message id {number}: expected a configuration and a header first"
                )
        header = wire.read_document(self.endpoint, wire.HEADER)
        self._has_header = True
        if self.refusal is not None:
            raise ChainError(self.refusal)
        self.started, self.scanned = True, not self._fetches
        if isinstance(config, str):
            return self._node(config, header)
        if self._fetches:
            return self._fetch(header)
        return self._scan(config, header)

    def _named(self, name: str) -> Chain:
        return Chain.served(name, self.chains)

    def _sent(self, text: str, named: bool = False) -> Chain | str | Exception:
        """Return a chain, by name or as XML, or the `<configuration>` of a node of Gadgetron.

        Errors are returned, to be reported after the header: a client may send only queries.
        """
        self._fetches = False
        try:
            if named or (text.strip() and "<" not in text):  # customconfig of FIRE
                self._fetches = text.strip().removesuffix(".xml") == FETCH
                return Chain(FETCH, "") if self._fetches else self._named(text.strip())
            root = parse(text, "the configuration") if text.strip() else None
            if root is None or (root.tag == "configuration" and root.find("stream") is None):
                return text
            return Chain("the received chain", text).checked(self.chains)
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

        logger.info("%s: node of a Gadgetron server", self.name)
        self._counts["node"] = 1
        connection = NodeConnection(
            self.endpoint.socket, config, header, stall=self.endpoint.stall, shared=self.shared
        )
        return run_target(reconstruct, self.name, connection) is None

    def _scan(self, config: Chain | Exception, header: str) -> bool:
        stream = Incoming(self.endpoint, self._counts)
        with self._reporting(stream) as failures, contextlib.ExitStack() as ends:
            chain = self._chain(config, header, stream)
            kept = self._deferred(chain, header)
            chain = chain.without(LATER)
            items: Iterator[Any] = stream
            if kept is not None:
                ends.callback(kept.drop)
                kept.chain, chain = chain, chain.with_properties({"sampler": "none"})
                items = capture(stream, header.encode(), str(kept.folder))
            logger.info("%s: scan with chain %s", self.name, chain.name)
            self._run_chain(chain, header, items, kept)
            if kept is not None and self._promise(kept):
                ends.pop_all()
        # a client that is still sending would not receive the images
        stream.drain()
        return not failures

    def _run_chain(
        self, chain: Chain, header: str, items: Iterator[Any], kept: Kept | None
    ) -> None:
        accepted = tuple(WRITERS[name] for name in chain.writers() if name in WRITERS)
        with contextlib.closing(run_chain(chain, header, items, self.shared)) as made:
            for item in made:
                if isinstance(item, accepted):
                    if kept is not None and isinstance(item, ismrmrd.Image):
                        kept.mark(item)
                    self._send(item)

    def _send(self, item: Any) -> None:
        wire.write_item(self.endpoint, item)
        self._counts[f"{type(item).__name__.lower()}s sent"] += 1

    @contextlib.contextmanager
    def _reporting(self, stream: Incoming) -> Iterator[list[Exception]]:
        """Send the error of a scan to the client, and append it to the list."""
        failures: list[Exception] = []
        try:
            yield failures
        except InputError as error:
            if isinstance(stream.error, StreamEnded):
                raise stream.error from error
            failures.append(error)
            logger.error("%s: %s", self.name, error)
            self._report_failure(error)
            self.started = False  # a stopping server does not wait for the rest
            self.endpoint.patient = False

    def _deferred(self, chain: Chain, header: str) -> Kept | None:
        """Return the deferred scan, None if its images are computed now."""
        if not is_deferred(chain):
            return None
        measurement = measurement_id(read_header(header))
        if not measurement or not self.later.keep:
            reason = "the header has no measurementID" if self.later.keep else "--keep is 0"
            self._note(f"{LATER}=true is not possible, {reason}: reconstructing now")
            return None
        try:
            return self.later.new(measurement, chain)
        except OSError as error:
            self._note(f"{LATER}=true is not possible, {error}: reconstructing now")
            return None

    def _promise(self, kept: Kept) -> bool:
        """Promise the posterior images, before the client receives CLOSE."""
        try:
            if kept.recording is not None:
                self.later.add(kept, self.shared)
                return True
        except (OSError, InputError) as error:
            logger.error(
                "measurement %s: cannot defer the reconstruction: %s", kept.measurement, error
            )
        self._note("cannot record the scan: its posterior images will not be computed")
        return False

    def _fetch(self, header: str) -> bool:
        """Send the images of an earlier scan when they are ready."""
        stream = Incoming(self.endpoint, self._counts)
        with self._reporting(stream) as failures:
            measurement = measurement_id(read_header(header))
            kept = self._wait_for(measurement, stream)
            if kept.error is not None:
                raise InputError(f"measurement '{measurement}': {describe(kept.error)}")
            for image in kept.images:
                self._send(image)
            self.later.hand_out(kept)
        stream.drain()
        return not failures

    def _wait_for(self, measurement: str, stream: Incoming) -> Kept:
        """Return an earlier scan when its images are ready.

        Messages to the waiting client detect one that has disconnected.
        """
        drained = False
        while True:
            kept = self.later.find(measurement)
            if kept is None:
                raise InputError(self.later.reason(measurement))
            if not drained:
                stream.drain()
                drained = True
            if kept.done.wait(WAIT_SECONDS) and self.later.find(measurement) in (kept, None):
                return kept  # not if the measurement was repeated meanwhile
            wire.write_text(
                self.endpoint, f"measurement '{_one_line(measurement)}' is being reconstructed"
            )

    def _chain(self, config: Chain | Exception, header: str, stream: Incoming) -> Chain:
        if isinstance(config, Chain):
            check_properties(config, self.shared)
        elif not isinstance(config, UnknownChain):
            raise config
        elif self.default is None and not self.endpoint.comes():
            raise config  # no text with another chain follows
        read_header(header)  # report errors before the scanner sends data
        text = stream.opening()
        if text is not None:
            logger.info("%s: text of the client: %s", self.name, _one_line(text))
        return choose(
            config, text, self._note, named=self._named, default=self.default, shared=self.shared
        )

    def _note(self, sentence: str) -> None:
        """Send a note to a client whose scan goes on."""
        logger.warning("%s: %s", self.name, _one_line(sentence))
        wire.write_text(self.endpoint, _one_line(sentence))

    def _report_failure(self, error: Exception) -> None:
        """Report to the peer that its scan failed."""
        with contextlib.suppress(OSError):
            if self._is_node:
                self.endpoint.in_step = self._has_header
                tell(self.endpoint, READERS, error)
            else:
                wire.write_text(self.endpoint, _one_line(f"{wire.FAILED}{describe(error)}"))


def _one_line(text: str) -> str:
    """Format a text with input of a client as one line of limited length."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= MAX_TEXT else f"{line[:MAX_TEXT]} ..."
