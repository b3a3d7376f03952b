import h5py
import ismrmrd
import numpy as np
import pytest
from synthetic import acquisitions, header, letter

from gadgets.commands import main
from gadgets.commands.replay import merge_by_time
from scoremri_core.scans.files import open_scan, write_scan

SHAPE = (48, 40)


def command(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(["replay", *map(str, arguments)])
    return stop.value.code


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "scan.h5"
    readouts = [
        readout
        for number in range(2)
        for readout in acquisitions(letter(*SHAPE), noise=0.002, slice=number)
    ]
    write_scan(path, header(*SHAPE), readouts, "raw")
    return path


def test_images_have_the_layout_of_ismrmrd(scan, tmp_path):
    out = tmp_path / "out.h5"
    out.write_text("an older file is replaced")
    asked = ("--overwrite", "--group", "raw", "-p", "sampler=none", "-p", "series=4")
    assert command(scan, "-o", out, *asked) == 0
    with h5py.File(out) as file:
        assert set(file) == {"raw"}
        assert set(file["raw"]) == {"image_4"}
        assert set(file["raw/image_4"]) == {"data", "header", "attributes"}
        assert file["raw/image_4/data"].shape == (2, 1, 1, *SHAPE)
    with ismrmrd.Dataset(str(out), "raw", mode="r") as dataset:
        images = [dataset.read_image("image_4", i) for i in range(2)]
    assert [image.slice for image in images] == [0, 1]
    for image in images:
        np.testing.assert_allclose(image.data[0, 0], letter(*SHAPE), atol=0.12)
        assert image.meta["sampler"] == "none"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.h5", "scan.h5"]


def test_waveforms_are_sent_in_time_order_and_saved(tmp_path):
    readouts = acquisitions(letter(*SHAPE), noise=0.002)  # at 1000 and on
    sent = []
    for stamp in (7, 1010, 1010, 2000):
        data = np.arange(12, dtype=np.uint32).reshape(2, 6) + stamp
        sent.append(ismrmrd.Waveform.from_array(data, waveform_id=2, time_stamp=stamp))
    write_scan(tmp_path / "in.h5", header(*SHAPE), readouts, waveforms=sent)
    with open_scan(tmp_path / "in.h5") as scan:
        items = list(merge_by_time(scan, scan.waveforms()))
    places = [n for n, item in enumerate(items) if isinstance(item, ismrmrd.Waveform)]
    assert places == [0, 12, 13, len(items) - 1]
    assert [item for item in items if isinstance(item, ismrmrd.Acquisition)] == readouts

    out = tmp_path / "out.h5"
    assert command(tmp_path / "in.h5", "-o", out, "-p", "sampler=none") == 0
    with ismrmrd.File(str(out), "r") as file:
        assert list(file["dataset"].waveforms) == sent
        assert len(file["dataset/image_1"].images) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--group", "absent"), "no group 'absent'"),
        (("--group", "raw", "-c", "absent"), "unknown chain 'absent': known are"),
        (("--group", "raw", "-c", "score_recon_generic"), "NoiseAdjustGadget needs a Gadgetron"),
        (
            ("--group", "raw", "-p", "sampel=1"),
            "unknown property 'sampel' (did you mean 'samples'?)",
        ),
        (("--group", "raw", "-p", "steps=x"), "property steps='x': expected auto or a whole"),
        (("--group", "raw", "-p", "steps"), "expected KEY=VALUE"),
        (("--group", "raw", "-p", "prior=absent"), "absent"),
        (("--group", "raw", "--address", "nowhere"), "expected HOST:PORT"),
        (
            ("--group", "raw", "--address", "h:1", "-c", "theirs", "-p", "a=b"),
            "-p needs a chain file",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(scan, tmp_path, capfd, arguments, message):
    assert command(scan, "-o", tmp_path / "out.h5", *arguments) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("scoremri: ")
    assert message in lines[-1]
    assert "Traceback" not in "".join(lines)
    assert [path.name for path in tmp_path.iterdir()] == ["scan.h5"]


def empty(path):
    with h5py.File(path, "w") as file:
        file.create_group("dataset")
    return "not an ISMRMRD scan"


def no_acquisitions(path):
    write_scan(path, header(*SHAPE), [])
    return "the dataset is empty"


def text(path):
    path.write_text("hello")
    return "not an ISMRMRD file"


def noise_alone(path):
    readouts = acquisitions(letter(*SHAPE))
    for readout in readouts:
        readout.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    write_scan(path, header(*SHAPE), readouts)
    return "returned no image"


def absent(path):
    return "no such file"


@pytest.mark.parametrize("make", [empty, no_acquisitions, text, noise_alone, absent])
def test_bad_files_are_named(tmp_path, capfd, make):
    path = tmp_path / "bad.h5"
    message = make(path)
    before = list(tmp_path.iterdir())
    assert command(path, "-o", tmp_path / "out.h5") == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert "bad.h5" in last
    assert message in last
    assert list(tmp_path.iterdir()) == before
