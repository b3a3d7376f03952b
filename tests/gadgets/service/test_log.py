"""For whom a log line is, of two scans at once."""

import logging
import re
import threading

import pytest
from served import QUICK, Served, scan

from gadgets.threads import add_log_context, log_context, start


@pytest.fixture
def lines():
    """Log lines as `serve` writes them."""
    written = []

    class Writer(logging.Handler):
        def emit(self, record):
            written.append(self.format(record))

    handler = Writer(logging.INFO)
    handler.addFilter(add_log_context)
    loggers = [logging.getLogger(name) for name in ("gadgets", "scoremri_core")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    yield written
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_log_lines_of_concurrent_scans_name_their_connection(lines):
    with Served() as running:
        clients = [
            threading.Thread(target=running.run, args=(QUICK, scan(*slices)))
            for slices in ((1, 2, 3), (4, 5, 6))
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join(60)
        running.wait(lambda: not running.server.open_connections)
    frames = [re.match(r"(connection \d): frame \d \(slice (\d)", line) for line in lines]
    found = {(match[1], int(match[2]) > 3) for match in frames if match}
    assert sum(map(bool, frames)) == 6
    assert len(found) == 2
    assert {name for name, _ in found} == {"connection 1", "connection 2"}
    for line in lines:
        assert line.count("connection 1: ") + line.count("connection 2: ") <= 1


def test_other_log_lines_are_unchanged(lines):
    logger = logging.getLogger("gadgets.test")
    with log_context("connection 7"):
        thread = start(logger.info, "%d frames", 3)
        logger.info("connection 7: closed")
    thread.join(10)
    logger.info("%s", "Stopping")
    assert sorted(lines) == ["Stopping", "connection 7: 3 frames", "connection 7: closed"]
