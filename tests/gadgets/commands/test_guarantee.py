"""Guaranteed intervals: calibration, and the series of a chain."""

import json

import ismrmrd
import numpy as np
import pytest

from gadgets.commands import command_line
from scoremri_core.errors import InputError
from scoremri_core.scans.gridding import fully_sampled_kspace
from scoremri_core.score.guarantee import Guarantee

FAST = ("--samples", "2", "--steps", "2", "--device", "cpu", "--calibration", "12")
CHAIN = ("-p", "samples=2", "-p", "steps=2", "-p", "device=cpu")


def run(*arguments):
    command_line()(args=[str(a) for a in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with five slices, their reflections, and the guarantee for R = 3."""
    folder = tmp_path_factory.mktemp("site")
    run("simulate", "-o", folder / "five.h5", "--matrix", 32, "--coils", 4, "--slices", 5)
    kspace = fully_sampled_kspace(folder / "five.h5")
    reflected = [kspace, np.roll(kspace[..., ::-1], 1, axis=-1)]
    full = np.concatenate([*reflected, *(k[:, ::-1] for k in reflected)])
    np.save(folder / "full.npy", full)
    side_car = {"axes": ["slice", "coil", "y", "x"], "field_of_view": [200, 200, 5]}
    (folder / "full.json").write_text(json.dumps(side_car))
    data = ("--data", folder / "full.npy", "--slices", 20)
    run("guarantee", *data, "-o", folder / "site.json", "-R", 3, *FAST)
    return folder


def images(folder, factor, *options):
    """Return the series of a scan of another head."""
    scan = ("--matrix", 32, "--coils", 4, "--seed", 1, "--calibration", 12)
    run("simulate", "-o", folder / "scan.h5", *scan, "-R", factor, "--overwrite")
    output = folder / "images.h5"
    run("replay", folder / "scan.h5", "-o", output, *CHAIN, *options, "--overwrite")
    with ismrmrd.Dataset(str(output), mode="r") as dataset:
        names = [name for name in dataset.list() if name.startswith("image_")]
        return {
            name: [dataset.read_image(name, i) for i in range(dataset.number_of_images(name))]
            for name in names
        }


def test_frame_like_those_of_the_calibration_has_an_interval(folder):
    series = images(folder, 3, "-p", f"guarantee={folder / 'site.json'}")
    assert list(series) == ["image_1", "image_2", "image_3"]
    lower, upper = (image.data[0, 0] for image in series["image_3"])
    mean = series["image_1"][0].data[0, 0]
    inside = upper > 0
    assert inside.mean() > 0.2
    assert (lower <= mean)[inside].all()
    assert (mean <= upper)[inside].all()
    meta = series["image_3"][0].meta
    assert "calibrated on 20 frames: 32 x 32, 4 coils, equispaced, R = 3" in meta["guarantee"]
    assert "guarantee_refused" not in series["image_1"][0].meta


@pytest.mark.parametrize(
    ("factor", "option", "reason"),
    [(2, "seed=0", "R with calibration lines is"), (3, "samples=3", "samples is 3")],
)
def test_other_frames_are_refused_with_the_reason(folder, factor, option, reason, capsys):
    guarantee = f"guarantee={folder / 'site.json'}"
    series = images(folder, factor, "-p", guarantee, "-p", option)
    assert list(series) == ["image_1", "image_2"]
    meta = series["image_1"][0].meta
    assert reason in meta["guarantee_refused"]
    assert meta["not_sent"] == "interval"
    assert f"has no guaranteed interval: {reason}" in capsys.readouterr().err


def test_file_records_protocol_ranges_and_coverage_on_frames_left_out(folder):
    found = Guarantee.load(folder / "site.json")
    assert found.frames == 20
    assert found.protocol["mask"] == "equispaced"
    assert found.settings["matrix"] == [32, 32]
    assert len(found.settings["sha256"]) == 64
    assert all(low <= high for low, high in found.seen.values())
    assert found.left_out["regions"]["coverage"] == pytest.approx(0.91, abs=0.02)
    assert np.isfinite(found.factors).all()


def test_fewer_than_20_frames_are_refused_before_the_computation(folder):
    with pytest.raises(InputError, match=r"19 fully sampled frames: expected at least 20"):
        run("guarantee", "--data", folder / "full.npy", "-o", folder / "no.json", "--slices", 19)
    assert not (folder / "no.json").exists()


def test_file_of_another_kind_is_refused(folder):
    other = folder / "other.json"
    for text in ("[]", "{", "{}", json.dumps({"format": "scoremri guarantee 1"})):
        other.write_text(text)
        with pytest.raises(InputError, match=r"guarantee .*other\.json"):
            Guarantee.load(other)
