"""`replay` of a folder, and its result as JSON."""

import json
import shutil

import h5py
import pytest

from scoremri_core.scans.files import write_scan
from scoremri_core.simulation.simulation import SimulatedScan

CLASSICAL = ("-p", "sampler=none")


@pytest.fixture
def scan(tmp_path):
    simulated = SimulatedScan((16, 16), coils=2, slices=2)
    path = tmp_path / "in" / "b.h5"
    path.parent.mkdir()
    write_scan(path, simulated.header, simulated)
    return path


def test_a_bad_scan_does_not_stop_the_others(run, scan, tmp_path):
    shutil.copy(scan, scan.with_name("c.mrd"))
    scan.with_name("a.h5").write_text("not a scan")
    code, out, _ = run("replay", scan.parent, "-o", tmp_path / "out", *CLASSICAL)
    assert code == 2
    assert [line.split(":")[0] for line in out.splitlines()] == [
        str(scan.with_name(name)) for name in ("a.h5", "b.h5", "c.mrd")
    ]
    assert "b.h5: 2 frames, " in out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.h5", "c.h5"]
    code, out, err = run("replay", scan.parent, "-o", tmp_path / "out", *CLASSICAL)
    assert (code, out) == (2, "")
    assert "already exists; --overwrite replaces it" in err


def test_the_result_of_a_scan_is_json_on_stdout(run, scan, tmp_path):
    images, page = tmp_path / "i.h5", tmp_path / "i.html"
    code, out, err = run(
        "replay", scan, "-o", images, "--report", page, "--json", *CLASSICAL
    )  # fmt: skip
    assert code == 0
    assert "2 images in dataset/image_1" in err
    found = json.loads(out)
    assert (found["source"], found["files"]) == (str(scan), [str(images), str(page)])
    assert (found["frames"], found["fallbacks"], found["error"]) == (2, [], None)
    with h5py.File(images) as file:
        assert set(found["series"]) == set(file["dataset"])
    code, out, _ = run("report", images, "-o", tmp_path / "j.html", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["frames"], found["shown"], found["warnings"]) == (2, 2, [])
    assert found["files"] == [str(tmp_path / "j.html")]


def test_the_results_of_a_folder_are_a_list(run, scan, tmp_path):
    code, out, _ = run("replay", scan.parent, "-o", tmp_path / "out", "--json", *CLASSICAL)
    assert code == 0
    assert [each["frames"] for each in json.loads(out)] == [2]
