"""Training: the data it makes, what it learns, and resuming."""

import json

import nibabel
import numpy as np
import pytest
import torch

from scoremri_core.errors import InputError
from scoremri_core.priors.unet import DenoisingUnet
from scoremri_core.training.augment import complex_patch
from scoremri_core.training.loop import Settings, denoising_loss, train
from scoremri_core.training.volumes import Slice, load_slices, sources

TINY = {"batch": 4, "patch": 32, "warmup": 5, "channels": (16, 16), "blocks": (1, 1)}


@pytest.fixture
def folder(tmp_path):
    """Two subjects: one for training, whose contrasts are on two axes, one for validation."""
    rng = np.random.default_rng(0)
    rows = ["file,subject,contrast,slice_axis,split,licence"]
    for name, axis, split in (("a", "2", "train"), ("b", "any", "train"), ("c", "0", "val")):
        volume = rng.uniform(50, 100, (40, 48, 56)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / f"{name}.nii.gz")
        rows.append(f"{name}.nii.gz,subject_{split},T1W,{axis},{split},MIT")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_slices_follow_the_manifest(folder):
    slices = load_slices(folder, "train")
    shapes = [s.image.shape for s in slices]
    assert shapes.count((40, 48)) == 56 + -(-56 // 3)  # axis 2 of both volumes
    assert {s.subject for s in slices} == {"subject_train"}
    assert {s.image.shape for s in load_slices(folder, "val")} == {(48, 56)}
    assert np.percentile(slices[0].image.astype(float), 99) == pytest.approx(1, abs=0.01)
    assert sources(folder, "train") == [
        {"subject": "subject_train", "contrasts": "T1W, T1W", "licence": "MIT"}
    ]


def test_missing_manifest_and_empty_split_are_named(folder, tmp_path_factory):
    with pytest.raises(InputError, match="'test'"):
        load_slices(folder, "test")
    with pytest.raises(InputError, match=r"manifest\.csv"):
        load_slices(tmp_path_factory.mktemp("empty"), "train")


def test_patches_are_complex_with_smooth_phase_and_belong_to_their_seed():
    magnitude = np.full((60, 70), 1, np.float16)
    patch = complex_patch(magnitude, 48, np.random.default_rng(1))
    assert patch.shape == (48, 48)
    assert patch.dtype == np.complex64
    steps = np.angle(patch[1:] / patch[:-1])
    assert np.median(np.abs(steps)) < 0.3
    again = complex_patch(magnitude, 48, np.random.default_rng(1))
    np.testing.assert_array_equal(patch, again)
    other = complex_patch(magnitude, 48, np.random.default_rng(2))
    assert np.abs(np.angle(np.vdot(patch, other))) > 1e-3


def test_resumed_training_is_the_same_as_uninterrupted(folder, tmp_path):
    slices = load_slices(folder, "train")
    whole = train(slices, tmp_path / "whole", Settings(steps=12, checkpoint_every=6, **TINY))
    with pytest.raises(KeyboardInterrupt):
        train(
            slices,
            tmp_path / "parts",
            Settings(steps=12, checkpoint_every=6, **TINY),
            lambda step, loss: (_ for _ in ()).throw(KeyboardInterrupt) if step == 8 else None,
        )
    parts = train(slices, tmp_path / "parts", Settings(steps=12, checkpoint_every=6, **TINY))
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    log = [json.loads(s) for s in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log] == [6, 12]


def test_training_learns_to_denoise(tmp_path):
    """Images of flat magnitude and smooth phase, unseen ones."""
    slices = [Slice(np.ones((48, 48), np.float16), "flat", "none")]
    settings = Settings(steps=400, learning_rate=3e-3, ema_decay=0.95, **TINY)
    trained = train(slices, tmp_path, settings)
    untrained = DenoisingUnet(settings.channels, settings.blocks)
    rng = np.random.default_rng(5)
    patches = np.stack([complex_patch(slices[0].image, 32, rng) for _ in range(32)])
    clean = torch.view_as_real(torch.from_numpy(patches)).permute(0, 3, 1, 2)
    before, after = (
        float(denoising_loss(model, clean, torch.Generator().manual_seed(0))[1])
        for model in (untrained, trained)
    )
    assert after < 0.35 * before
