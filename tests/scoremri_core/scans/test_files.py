import h5py
import ismrmrd
import numpy as np
import pytest
from ismrmrd import xsd

from scoremri_core.errors import InputError
from scoremri_core.paths import replacing
from scoremri_core.scans.files import open_scan, write_scan
from scoremri_core.simulation.simulation import SimulatedScan

SMALL = SimulatedScan(matrix=(18, 17), coils=3, slices=2, repetitions=2)


@pytest.fixture
def path(tmp_path):
    write_scan(tmp_path / "scan.h5", SMALL.header, SMALL, arrays={"truth/image": SMALL.image})
    return tmp_path / "scan.h5"


def test_written_scan_is_read_back_and_by_ismrmrd(path):
    with open_scan(path) as scan:
        read = list(scan)
        assert len(scan) == len(read)
        assert scan.header == SMALL.header
        assert scan.heads().tobytes() == SMALL.heads().tobytes()
    assert read == list(SMALL)
    with ismrmrd.Dataset(path, mode="r") as peer:
        assert peer.number_of_acquisitions() == len(read)
        assert peer.read_acquisition(70) == read[70]


def test_waveforms_and_trajectories_are_kept(tmp_path):
    rng = np.random.default_rng(0)
    data = (rng.normal(size=(2, 5)) + 1j).astype(np.complex64)
    spiral = ismrmrd.Acquisition.from_array(data, rng.normal(size=(5, 3)).astype(np.float32))
    pulse = ismrmrd.Waveform.from_array(rng.integers(0, 9, (2, 11), dtype=np.uint32))
    write_scan(tmp_path / "w.h5", SMALL.header, [spiral], "other", waveforms=[pulse])
    with open_scan(tmp_path / "w.h5", "other") as scan:
        assert list(scan) == [spiral]
        (read,) = scan.waveforms()
        assert np.array_equal(read.data, pulse.data)


def test_header_is_written_without_version(tmp_path):
    header = xsd.CreateFromDocument(xsd.ToXML(SMALL.header))
    header.version = 9
    write_scan(tmp_path / "v.h5", header, SMALL)
    assert header.version == 9
    with open_scan(tmp_path / "v.h5") as scan:
        assert "<version>" not in scan.header_xml
        assert scan.header == SMALL.header


def test_failed_write_keeps_the_old_file_only(path):
    def failing():
        yield next(iter(SMALL))
        raise RuntimeError

    before = path.read_bytes()
    with pytest.raises(RuntimeError):
        write_scan(path, SMALL.header, failing())
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_missing_folder_is_refused(tmp_path):
    with (
        pytest.raises(InputError, match="does not exist"),
        replacing(tmp_path / "no" / "out.h5"),
    ):
        pass


def test_file_that_the_process_has_open_can_be_read(path):
    with h5py.File(path), open_scan(path) as scan:
        assert len(list(scan)) == len(scan)


def _text(path):
    path.write_text("hello")


def _no_group(path):
    with h5py.File(path, "w") as file:
        file.create_group("images")


def _empty(path):
    write_scan(path, SMALL.header, [])


def _not_a_header(path):
    _empty(path)
    with h5py.File(path, "a") as file:
        file["dataset/data"].resize(1, axis=0)
        file["dataset/xml"][0] = b"<a>"


def _not_acquisitions(path):
    with h5py.File(path, "w") as file:
        file["dataset/data"], file["dataset/xml"] = np.zeros(3), b"<a/>"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no such file"),
        (_text, "not an ISMRMRD file"),
        (_no_group, r"no group 'dataset' \(groups of this file: images\)"),
        (_empty, "empty"),
        (_not_a_header, "header is not a valid ISMRMRD header"),
        (_not_acquisitions, "is not of ISMRMRD acquisitions"),
    ],
)
def test_errors_name_the_file(tmp_path, make, words):
    path = tmp_path / "bad.h5"
    make(path)
    with pytest.raises(InputError, match=words) as error, open_scan(path):
        pass
    assert str(path) in str(error.value)


def test_readout_that_contradicts_its_header_is_refused(path):
    with h5py.File(path, "a") as file:
        row = file["dataset/data"][130]
        row["data"] = row["data"][:-2]
        file["dataset/data"][130] = row
    with pytest.raises(InputError, match="acquisition 130 has"), open_scan(path) as scan:
        list(scan)
