"""One connection to the server: a client with a scan, or a Gadgetron server with one node."""

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
from gadgets.service.choice import LATER, choose, valid, wants_later
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
READERS = {  # of what a Gadgetron server sends to a node
    **Connection._default_readers(),
    **wire.READERS,
    constants.GADGET_MESSAGE_RECON_DATA: read_recon_data,
}
WAIT_SECONDS = 10.0  # after which a client that fetches is told that it waits
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
    later : keeps images for clients that do not wait.
    refusal : why no scan is taken, or None to take it.
    started : whether a scan is under way.
    scanned : whether there was one.
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
    _is_node: bool = False  # of a Gadgetron server, which must not be sent a TEXT

    def run(self) -> bool:
        """Serve the connection to its end; says whether all went well."""
        with log_context(self.name):
            return self._served()

    def _served(self) -> bool:
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
        """A chain by name or as XML; or the `<configuration>` of one node of a Gadgetron server.

        What is wrong is told with the header: until then, a client may only want to ask.
        """
        self._fetches = False
        try:
            if named or (text.strip() and "<" not in text):  # as FIRE's customconfig may come
                self._fetches = text.strip().removesuffix(".xml") == FETCH
                return Chain(FETCH, "") if self._fetches else self._named(text.strip())
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
        stream = Incoming(self.endpoint, self._counts)
        with self._telling(stream) as failures, contextlib.ExitStack() as ends:
            chain = self._chosen(config, header, stream)
            kept = self._kept(chain, header)
            chain = chain.without(LATER)
            items: Iterator[Any] = stream
            if kept is not None:
                ends.callback(kept.drop)
                kept.chain, chain = chain, chain.with_properties({"sampler": "none"})
                items = capture(stream, header.encode(), str(kept.folder))
            logger.info("%s: a scan through %s", self.name, chain.name)
            self._run_chain(chain, header, items, kept)
            if kept is not None and self._keep(kept):
                ends.pop_all()
        # A client that still sends would lose our words if we closed now.
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
    def _telling(self, stream: Incoming) -> Iterator[list[Exception]]:
        """Tell a client what its scan fails with, and keep it in the list."""
        failures: list[Exception] = []
        try:
            yield failures
        except InputError as error:
            if isinstance(stream.error, StreamEnded):
                raise stream.error from error
            failures.append(error)
            logger.error("%s: %s", self.name, error)
            self._tell(error)
            self.started = False  # a server that stops need not wait for the rest,
            self.endpoint.patient = False  # nor anyone for long

    def _kept(self, chain: Chain, header: str) -> Kept | None:
        """What will become of a scan whose client does not wait, or None if it does."""
        if not wants_later(chain):
            return None
        measurement = measurement_id(read_header(header))
        if not measurement or not self.later.keep:
            lacks = "the header has no measurementID" if self.later.keep else "nothing is kept here"
            self._note(f"{LATER}=true is not possible, {lacks}: the images come now")
            return None
        try:
            return self.later.new(measurement, chain)
        except OSError as error:
            self._note(f"{LATER}=true is not possible, {error}: the images come now")
            return None

    def _keep(self, kept: Kept) -> bool:
        """Promise the posterior images, before CLOSE tells the client that all is well."""
        try:
            if kept.recording is not None:
                self.later.add(kept, self.shared)
                return True
        except (OSError, InputError) as error:
            logger.error("measurement %s is not promised: %s", kept.measurement, error)
        self._note("the scan could not be recorded: its posterior images will not be made")
        return False

    def _fetch(self, header: str) -> bool:
        """Send what was made of an earlier scan, as soon as it is."""
        stream = Incoming(self.endpoint, self._counts)
        with self._telling(stream) as failures:
            measurement = measurement_id(read_header(header))
            kept = self._waited_for(measurement, stream)
            if kept.error is not None:
                raise InputError(f"measurement '{measurement}': {describe(kept.error)}")
            for image in kept.images:
                self._send(image)
            self.later.hand_out(kept)
        stream.drain()
        return not failures

    def _waited_for(self, measurement: str, stream: Incoming) -> Kept:
        """An earlier scan, once its images are made; the client is told now and then that it waits.

        So a client that has gone is found, and does not hold its connection.
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
                return kept  # not one that was scanned again meanwhile
            wire.write_text(self.endpoint, f"measurement '{_words(measurement)}' is being made")

    def _chosen(self, config: Chain | Exception, header: str, stream: Incoming) -> Chain:
        if isinstance(config, Chain):
            valid(config, self.shared)
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
                self.endpoint.in_step = self._has_header
                tell(self.endpoint, READERS, error)
            else:
                wire.write_text(self.endpoint, _words(f"{wire.FAILED}{describe(error)}"))


def _words(text: str) -> str:
    """A text that may hold what a client sent, as one line of bounded length."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= MAX_WORDS else f"{line[:MAX_WORDS]} ..."
