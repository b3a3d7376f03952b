"""For whom a log line is, of two scans at once; and how threads wait."""

import logging
import os
import re
import threading

import pytest
from served import QUICK, Served, scan

from gadgets.threads import WAITING, say_for_whom, share_cores, start, working_for


@pytest.fixture
def lines():
    """Log lines as `serve` writes them."""
    written = []

    class Writer(logging.Handler):
        def emit(self, record):
            written.append(self.format(record))

    handler = Writer(logging.INFO)
    handler.addFilter(say_for_whom)
    loggers = [logging.getLogger(name) for name in ("gadgets", "scoremri_core")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    yield written
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_the_lines_of_two_scans_at_once_carry_their_connection(lines):
    with Served() as running:
        clients = [
            threading.Thread(target=running.run, args=(QUICK, scan(*slices)))
            for slices in ((1, 2, 3), (4, 5, 6))
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join(60)
    frames = [re.match(r"(connection \d): frame \d \(slice (\d)", line) for line in lines]
    found = {(match[1], int(match[2]) > 3) for match in frames if match}
    assert sum(map(bool, frames)) == 6
    assert len(found) == 2
    assert {name for name, _ in found} == {"connection 1", "connection 2"}
    for line in lines:
        assert line.count("connection 1: ") + line.count("connection 2: ") <= 1


def test_a_line_that_is_for_nobody_stays_as_it_is(lines):
    logger = logging.getLogger("gadgets.test")
    with working_for("connection 7"):
        thread = start(logger.info, "%d frames", 3)
        logger.info("connection 7: closed")
    thread.join(10)
    logger.info("%s", "Stopping")
    assert sorted(lines) == ["Stopping", "connection 7: 3 frames", "connection 7: closed"]


@pytest.mark.parametrize("given", [None, *WAITING])
def test_how_threads_wait_is_set_where_nobody_has(monkeypatch, given):
    for name in WAITING:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    if given:
        monkeypatch.setenv(given, "7")
    share_cores()
    expected = {"OMP_WAIT_POLICY": "PASSIVE"} if given is None else {given: "7"}
    assert {name: os.environ[name] for name in WAITING if name in os.environ} == expected


@pytest.mark.parametrize(
    ("quota", "given", "expected"),
    [
        ("150000 100000", None, "2"),
        ("50000 100000", None, "1"),
        ("150000 100000", "5", "5"),
        ("max 100000", None, None),
        ("900000 100000", None, None),
        ("", None, None),
    ],
)
def test_a_container_has_no_more_threads_than_cores(monkeypatch, tmp_path, quota, given, expected):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("OMP_NUM_THREADS", given or "")
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr("gadgets.threads.CPU_MAX", tmp_path / "cpu.max")
    monkeypatch.setattr("gadgets.threads.cores", lambda: 8)
    share_cores()
    assert os.environ.get("OMP_NUM_THREADS") == expected
