"""scoremri train and measure, at the size of a test."""

import csv
import json
from types import SimpleNamespace

import h5py
import nibabel
import numpy as np
import pytest

from gadgets.commands import measure as commands
from scoremri_core.priors import load_prior
from scoremri_core.priors.residual_unet import ResidualUnetPrior
from scoremri_core.priors.storage import sha256
from scoremri_core.training import card as cards
from scoremri_core.training import measure, width

SMALL = ("--batch", 2, "--patch", 32, "--device", "cpu", "--channels", "8,8", "--blocks", "1,1")


@pytest.fixture
def volumes(tmp_path):
    """A training, a validation and a test volume."""
    folder = tmp_path / "volumes"
    folder.mkdir()
    with (folder / "manifest.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "subject", "contrast", "slice_axis", "split", "licence"])
        for split in ("train", "val", "test"):
            volume = np.random.default_rng(0).uniform(50, 100, (40, 40, 4)).astype(np.float32)
            nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / f"{split}.nii.gz")
            rows.writerow([f"{split}.nii.gz", split, "T1W", "2", split, "MIT"])
    return folder


@pytest.fixture
def quick(monkeypatch):
    """Measure less: one slice, two noise levels, no scan."""
    chosen = measure.evenly_spaced
    monkeypatch.setattr(measure, "LEVELS", (0.1, 1.0))
    monkeypatch.setattr(measure, "evenly_spaced", lambda slices, count: chosen(slices, 1))
    factors = {"inflation": 3.0, "variance_scale": 2.0, "variance_calibration": []}
    monkeypatch.setattr(cards, "calibrate_variance", lambda *arguments: factors)


def test_a_prior_is_trained_and_measured(volumes, run, quick, tmp_path):
    """From a manifest and a file of complex images."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 40, 40)) + 1j * rng.normal(size=(2, 40, 40))
    with h5py.File(tmp_path / "complex.h5", "w") as file:
        file["image"] = image.astype(np.complex64)
    output = tmp_path / "run"
    code, _, _ = run(
        *("train", "--data", volumes, "--data", tmp_path / "complex.h5", "-o", output),
        *("--steps", 4, "--checkpoint-every", 2, *SMALL),
    )
    assert code == 0
    assert sorted(p.name for p in output.iterdir()) == [
        "cache",
        "checkpoint.pt",
        "default.json",
        "default.safetensors",
        "denoised.png",
        "log.jsonl",
    ]
    assert (output / "denoised.png").read_bytes().startswith(b"\x89PNG")
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log] == [2, 4]
    assert all(record["validation_error"] > 0 for record in log)
    card = json.loads((output / "default.json").read_text())
    assert card["command"].endswith("--steps 4 --batch 2 --patch 32 --learning-rate 0.001 --seed 0 "
                                    "--channels 8,8 --blocks 1,1")  # fmt: skip
    assert card["seed"] == 0
    assert card["final_loss"] == log[-1]["loss"]
    assert [d["subject"] for d in card["training_data"]] == ["train", "complex"]
    assert [d["subject"] for d in card["validation_data"]] == ["val"]
    assert [d["subject"] for d in card["test"]["data"]] == ["test"]
    for table in (card, card["test"]):
        assert [row["sigma"] for row in table["denoiser_error"]] == [0.1, 1.0]
        assert np.shape(table["error_spectrum"]["mse"]) == (2, measure.RINGS)
    assert card["variance_scale"] == 2.0
    assert any("2 subjects (T1W, not stated)" in sentence for sentence in card["limits"])
    assert card["sha256"] == sha256(output / "default.safetensors")
    prior = load_prior(output / "default.safetensors")
    assert (prior.variance_scale, prior.inflation) == (2.0, 3.0)
    assert prior.error_spectrum(0.3, (32, 32)) is not None
    assert len(card["image_spectrum"]["frequencies"]) == len(card["image_spectrum"]["variance"])


def test_priors_and_unfinished_runs_are_measured(volumes, run, quick, tmp_path):
    train = ("train", "--data", volumes, "-o", tmp_path / "run", "--steps", 1, *SMALL)
    assert run(*train)[0] == 0
    code, _, _ = run(
        "measure", tmp_path / "run" / "checkpoint.pt", "--data", volumes, "--name", "early"
    )
    assert code == 0
    first, early = (tmp_path / "run" / f"{name}.json" for name in ("default", "early"))
    same = json.loads(first.read_text())
    assert json.loads(early.read_text()) == same | {"name": "early"}
    # the card is made anew, the weights stay
    early.write_text(json.dumps({**same, "name": "early", "variance_scale": 7.0, "limits": []}))
    weights = early.with_suffix(".safetensors").read_bytes()
    code, _, _ = run("measure", early.with_suffix(".safetensors"), "--data", volumes)
    assert code == 0
    assert json.loads(early.read_text()) == same | {"name": "early"}
    assert early.with_suffix(".safetensors").read_bytes() == weights
    # without the factors of one sampler, for the others
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    options = ("--name", "score", "--no-width")
    assert run("measure", checkpoint, "--data", volumes, *options)[0] == 0
    score = json.loads((tmp_path / "run" / "score.json").read_text())
    factors = {"variance_scale", "inflation", "variance_calibration"}
    assert set(same) - set(score) == factors
    assert score["denoiser_error"] == same["denoiser_error"]
    assert not any("variance_scale" in line for line in score["limits"])


def test_a_residual_unet_is_trained_measured_and_stored(volumes, run, quick, tmp_path):
    options = ("--steps", 1, "--batch", 2, "--patch", 32, "--device", "cpu")
    code, _, _ = run(
        *("train", "--data", volumes, "-o", tmp_path / "run", "--name", "mine", *options),
        *("--architecture", "residual-unet", "--loss", "signed", "--signed-sd", 0.4),
    )
    assert code == 0
    card = json.loads((tmp_path / "run" / "mine.json").read_text())
    assert card["architecture"] == "residual-unet"
    assert card["command"].endswith("--architecture residual-unet --loss signed --signed-sd 0.4")
    assert card["sigma_range"] == pytest.approx([0.0, 1.2])
    assert [row["sigma"] for row in card["denoiser_error"]] == [0.1, 1.0]
    assert card["variance_scale"] == 2.0
    assert isinstance(load_prior(tmp_path / "run" / "mine.safetensors"), ResidualUnetPrior)


def test_a_preset_sets_the_defaults_of_all_other_options(volumes, run, quick, tmp_path):
    small = ("--steps", 1, "--batch", 2, "--patch", 32, "--device", "cpu", "--width", 8)
    code, _, _ = run(
        *("train", "--data", volumes, "-o", tmp_path / "run", "--preset", "jalal2021", *small),
        *("--depth", "plain", "--levels", 40),
    )
    assert code == 0
    card = json.loads((tmp_path / "run" / "default.json").read_text())
    assert card["architecture"] == "ncsnv2"
    assert card["config"]["levels"] == 40
    assert card["sigma_range"] == [0.0066, 232.0]
    assert "--learning-rate 0.0001 " in card["command"]
    assert card["command"].endswith(
        "--architecture ncsnv2 --width 8 --depth plain --levels 40 --sigma-begin 232 --sigma-end "
        "0.0066 --optimizer adam --adam-eps 0.001 --schedule constant --processed 0"
    )
    assert load_prior(tmp_path / "run" / "default.safetensors").sigmas[0] == 232
    code, _, message = run("train", "--data", volumes, "-o", tmp_path / "x", "--preset", "song")
    assert (code, message) == (
        2, "scoremri: preset 'song': expected one of jalal2021, ramzi2020\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--loss", "signed"), "residual-unet"),
        (("--blocks", "1,1,1"), "as many channels as blocks"),
        (("--start", "default"), "expected a prior of the same architecture"),
        (("--data", "gone"), "gone: no such file or folder"),
    ],
)
def test_conflicting_options_are_refused(volumes, run, tmp_path, options, expected):
    command = ("train", "--data", volumes, "-o", tmp_path / "run", "--steps", 1, *SMALL)
    code, _, message = run(*command, *options)
    assert code == 2
    assert expected in message
    assert message.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_data_without_a_split_is_refused(volumes, run, tmp_path):
    manifest = volumes / "manifest.csv"
    text = manifest.read_text()
    for split in ("train", "val"):
        manifest.write_text(text.replace(f",{split},MIT", ",test,MIT"))
        code, _, message = run("train", "--data", volumes, "-o", tmp_path / "run", *SMALL)
        assert code == 2
        assert f"no file of split '{split}'" in message
    assert not (tmp_path / "run").exists()


def test_the_measurement_can_be_omitted(volumes, run, tmp_path, monkeypatch):
    def measured(*_):
        raise AssertionError("not to be measured")

    monkeypatch.setattr(cards, "measure_prior", measured)
    code, _, log = run(
        *("train", "--data", volumes, "-o", tmp_path / "run", "--steps", 1, *SMALL),
        "--no-measure",
    )
    assert code == 0
    assert "default.safetensors, not measured (see scoremri measure)" in log
    assert load_prior(tmp_path / "run" / "default.safetensors").card["steps"] == 1


def test_the_remaining_time_of_the_measurement_is_logged(
    volumes, run, quick, tmp_path, monkeypatch
):
    def calibrate(prior, slices, device, progress):
        for done in (1, 2, 3):
            progress(done)
            clock.append(clock[-1] + 100)
        return {"inflation": 1.0, "variance_scale": 1.0, "variance_calibration": []}

    clock = [0.0]
    monkeypatch.setattr(commands, "time", SimpleNamespace(monotonic=lambda: clock[-1]))
    monkeypatch.setattr(cards, "calibrate_variance", calibrate)
    train = ("train", "--data", volumes, "-o", tmp_path / "run", "--steps", 1, *SMALL)
    code, _, log = run(*train)
    assert code == 0
    logged = [line.partition(": ")[2] for line in log.splitlines() if "commands.measure: " in line]
    total = width.reconstructions()
    assert logged[0].endswith(f"denoiser error, then {total} reconstructions")
    assert logged[1] == f"remaining {total - 2} reconstructions: about 67 min"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--channels", "8,16"), "the same architecture and size"),
        (("--name", "a/b"), "name 'a/b'"),
        (("--device", "abacus"), "device 'abacus'"),
        (("--batch", "0"), "--batch"),
    ],
)
def test_options_are_checked_before_reading(volumes, run, tmp_path, monkeypatch, options, expected):
    begin = ("train", "--data", volumes, "-o", tmp_path / "run", "--steps", 1, *SMALL)
    assert run(*begin, "--no-measure")[0] == 0

    def read(*_):
        raise AssertionError("no data are to be read")

    monkeypatch.setattr("scoremri_core.training.slices.load_slices", read)
    code, _, err = run(*begin, *options)
    assert code == 2
    assert expected in err
    assert err.count("\n") == 1
