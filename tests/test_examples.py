"""The scripts of the documentation run, with results close to the truth."""

import importlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from gadgets.commands import main
from scoremri_core.score.metrics import psnr

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


@pytest.fixture(autouse=True)
def _found(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)


def command(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == 0


@pytest.mark.parametrize(
    ("name", "steps", "prior", "gain"),
    [("array_in", 6, "default", 4), ("own_denoiser", 11, "smooth", 1)],
)
def test_the_mean_is_closer_to_the_truth_than_zero_filling(name, steps, prior, gain):
    example = importlib.import_module(name)
    truth, zero_filled, result = example.main(samples=4, steps=steps, size=96)
    assert (result.info.prior, result.info.reason) == (prior, None)
    assert result.samples.shape == (1, 4, *truth.shape)
    assert psnr(result.mean[0], truth) > psnr(zero_filled, truth) + gain
    error = np.abs(result.mean[0]) - np.abs(truth)  # phase is relative to that of the coil maps
    assert np.mean(np.abs(error) < 3 * result.std[0]) > 0.9


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    command("simulate", "-o", path, "--matrix", 64, "--coils", 4, "-R", 3, "--calibration", 16)
    return path


QUICK = {"samples": "2", "steps": "4", "device": "cpu"}


def test_a_custom_gadget_receives_the_images(scan):
    images = importlib.import_module("own_chain").main(scan, **QUICK)
    assert set(images) == {1, 2, 3}
    np.testing.assert_allclose(images[3] * images[2], images[1], rtol=1e-5)
    with h5py.File(scan) as file:
        truth = np.abs(file["truth/image"][0])
    assert psnr(images[1], truth) > 25


def test_the_command_line_runs_the_same_chain(scan, tmp_path):
    quick = [word for name, value in QUICK.items() for word in ("-p", f"{name}={value}")]
    out = tmp_path / "images.h5"
    command("replay", scan, "-o", out, "-c", EXAMPLES / "own_chain.xml", *quick)
    with h5py.File(out) as file:
        mean, std, ratio = (file[f"dataset/image_{n}/data"][0, 0, 0] for n in (1, 2, 3))
    np.testing.assert_allclose(ratio * std, mean, rtol=1e-5)
