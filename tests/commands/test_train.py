"""scoremri train, at the size of a test."""

import csv
import json

import nibabel
import numpy as np
import pytest

from scoremri_core.priors import load_prior
from scoremri_core.priors.residual_unet import ResidualUnetPrior
from scoremri_core.training import measure


@pytest.fixture
def volumes(tmp_path):
    """A training and a validation volume."""
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "subject", "contrast", "slice_axis", "split", "licence"])
        for split in ("train", "val"):
            volume = np.random.default_rng(0).uniform(50, 100, (40, 40, 4)).astype(np.float32)
            nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / f"{split}.nii.gz")
            rows.writerow([f"{split}.nii.gz", split, "T1W", "2", split, "MIT"])
    return tmp_path


def test_a_residual_unet_is_trained_measured_and_stored(volumes, run, monkeypatch):
    spread = measure._spread
    monkeypatch.setattr(measure, "LEVELS", (0.1, 1.0))
    monkeypatch.setattr(measure, "_spread", lambda slices, count: spread(slices, 1))
    # which samples many scans
    monkeypatch.setattr(measure, "calibrate_variance", lambda prior, slices: (2.0, []))
    options = ("--steps", 1, "--batch", 2, "--patch", 32, "--device", "cpu")
    code, _, _ = run(
        *("train", "--data", volumes, "-o", volumes / "run", "--name", "mine", *options),
        *("--architecture", "residual-unet", "--loss", "signed", "--signed-sd", 0.4),
    )
    assert code == 0
    card = json.loads((volumes / "run" / "mine.json").read_text())
    assert card["architecture"] == "residual-unet"
    assert card["command"].endswith("--architecture residual-unet --loss signed --signed-sd 0.4")
    assert card["sigma_range"] == pytest.approx([0.0, 1.2])
    assert [row["sigma"] for row in card["denoiser_error"]] == [0.1, 1.0]
    assert card["variance_scale"] == 2.0
    assert isinstance(load_prior(volumes / "run" / "mine.safetensors"), ResidualUnetPrior)


def test_what_does_not_go_together_is_refused(volumes, run):
    code, _, told = run("train", "--data", volumes, "-o", volumes / "run", "--loss", "signed")
    assert code == 2
    assert "residual-unet" in told
    assert not (volumes / "run").exists()
