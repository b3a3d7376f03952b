import logging
import os

import ismrmrd
import numpy as np
import pytest
from synthetic import acquisitions, header, letter

from gadgets.stream.capture import capture
from scoremri_core.scans.files import BLOCK, open_scan

XML = header(200, 16).encode() + b"\0"


def scan():
    return acquisitions(letter(200, 16), coils=2, noise=0.01)


def waveform(stamp):
    data = np.arange(12, dtype=np.uint32).reshape(2, 6) + stamp
    return ismrmrd.Waveform.from_array(data, waveform_id=3, time_stamp=stamp)


def test_complete_scan_is_saved(tmp_path):
    sent = [waveform(1), *scan(), waveform(2), "anything else"]
    assert list(capture(sent, XML, str(tmp_path / "new"))) == sent
    (path,) = (tmp_path / "new").iterdir()
    assert path.suffixes[-1] == ".h5"
    assert "partial" not in path.name
    assert path.stat().st_size < 2**19  # the reserved space is released
    with open_scan(path) as saved:
        assert list(saved) == scan()
        assert list(saved.waveforms()) == [waveform(1), waveform(2)]


def test_readouts_are_written_during_the_scan(tmp_path):
    stream = capture(scan(), XML, str(tmp_path))
    for _ in range(2 * BLOCK + 1):
        next(stream)
    (path,) = tmp_path.iterdir()
    assert path.name.endswith(".partial.h5")
    assert path.stat().st_size > 2 * BLOCK * 2 * 16 * 8
    stream.close()


def test_incomplete_scan_keeps_its_partial_name(tmp_path, caplog):
    def broken():
        yield from scan()[:100]
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        list(capture(broken(), XML, str(tmp_path)))
    (path,) = tmp_path.iterdir()
    assert path.name.endswith(".partial.h5")
    assert "Scan is incomplete" in caplog.text
    with open_scan(path) as saved:
        assert list(saved) == scan()[:100]


@pytest.mark.parametrize("blocks", [0, 1])
def test_full_disk_is_logged_and_leaves_no_file(tmp_path, monkeypatch, caplog, blocks):
    reserve, calls = os.posix_fallocate, []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) > blocks:
            raise OSError(28, os.strerror(28))
        reserve(*arguments)

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert list(capture(scan(), XML, str(tmp_path))) == scan()
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "scan continues, but is not captured" in record.getMessage().lower()
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_created_is_logged(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert list(capture(scan(), XML, str(tmp_path / "file" / "folder"))) == scan()
    assert "not captured" in caplog.text


def test_empty_stream_and_empty_folder_save_nothing(tmp_path):
    assert list(capture([], XML, str(tmp_path))) == []
    assert list(capture(scan(), XML, "")) == scan()
    assert list(tmp_path.iterdir()) == []
