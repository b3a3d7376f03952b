"""Training: what it learns, resuming, several processes, and the card."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from textures import textures
from torch.distributed.run import get_args_parser

from scoremri_core.errors import InputError
from scoremri_core.priors import load_prior
from scoremri_core.priors.storage import save_prior
from scoremri_core.priors.unet import DenoisingUnet
from scoremri_core.training import card
from scoremri_core.training.augment import complex_patch
from scoremri_core.training.loop import CHECKPOINT, LOG, read_checkpoint, train
from scoremri_core.training.manifest import Source
from scoremri_core.training.objective import (
    SIGMA_RANGE,
    Objective,
    denoising_loss,
    expected_noise,
    log_normal_levels,
    signed_levels,
)
from scoremri_core.training.settings import Settings
from scoremri_core.training.slices import Slice

TINY = {"batch": 4, "patch": 32, "warmup": 5, "channels": (16, 16), "blocks": (1, 1)}


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


def test_a_run_is_repeatable_and_a_resumed_one_is_the_same(tmp_path):
    settings = Settings(steps=12, checkpoint_every=6, **TINY)

    def stop(step, loss):
        if step == 8:
            raise KeyboardInterrupt

    whole = train(textures(), tmp_path / "whole", settings)
    again = train(textures(), tmp_path / "again", settings)
    with pytest.raises(KeyboardInterrupt):
        train(textures(), tmp_path / "parts", settings, stop)
    parts = train(textures(), tmp_path / "parts", settings)
    for other in (again, parts):
        for a, b in zip(whole.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)
    log = [json.loads(s) for s in (tmp_path / "parts" / LOG).read_text().splitlines()]
    assert [record["step"] for record in log] == [6, 12]
    different = train(textures(), tmp_path / "seed", Settings(steps=12, seed=1, **TINY))
    assert not torch.equal(next(whole.parameters()), next(different.parameters()))


RANK = """
import sys
from pathlib import Path
import numpy as np
import pytest
from scoremri_core.errors import InputError
from scoremri_core.training.loop import train
from scoremri_core.training.ranks import init_ranks
from scoremri_core.training.settings import Settings
from scoremri_core.training.slices import Slice

slices = [Slice(image, "", "") for image in np.load(sys.argv[1])]
settings = Settings.from_json(sys.argv[2])
with init_ranks("cpu") as ranks:
    assert ranks.count == 2
    assert ranks.first == (ranks.rank == 0)
    with pytest.raises(InputError, match="batch is 5: expected a multiple of the 2"):
        ranks.share(5)
    train(slices, Path(sys.argv[3]) / str(ranks.rank), settings, ranks=ranks)
"""


def test_torchrun_leaves_the_documented_options_to_train():
    """It takes `--start` for its own `--start-method` unless "--" ends its options."""
    page = Path(__file__).parents[3] / "docs" / "training.md"
    text = page.read_text().replace("\\\n", "")
    commands = [line for line in text.splitlines() if line.startswith("    torchrun ")]
    for command in commands:
        found = get_args_parser().parse_args(shlex.split(command)[1:])
        assert (found.module, found.training_script) == (True, "scoremri_core")
        assert "--start" in found.training_script_args
    assert len(commands) == 3


def test_two_processes_train_as_one_does(tmp_path):
    """Started by torchrun, which ends both where one fails; each has half of each batch."""
    settings = Settings(steps=8, **TINY)
    np.save(tmp_path / "slices.npy", [s.image for s in textures()])
    (tmp_path / "rank.py").write_text(RANK)
    arguments = (tmp_path / "slices.npy", settings.to_json(), tmp_path)
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         tmp_path / "rank.py", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        timeout=240,
    )  # fmt: skip
    assert list((tmp_path / "1").iterdir()) == []  # the first alone writes
    two = read_checkpoint(tmp_path / "0" / CHECKPOINT)["average"]
    before = settings.network()
    one = train(textures(), tmp_path / "one", settings)
    moved = apart = 0.0
    for name, value in before.state_dict().items():
        moved += float((one.state_dict()[name] - value).square().sum())
        apart += float((one.state_dict()[name] - two[name]).square().sum())
    assert moved > 0
    assert apart < 1e-3 * moved
    records = [json.loads((tmp_path / name / LOG).read_text())["loss"] for name in ("one", "0")]
    assert records[0] == pytest.approx(records[1], rel=1e-3)


def test_training_learns_to_denoise(tmp_path):
    """Images of flat magnitude and smooth phase, unseen ones."""
    slices = [Slice(np.ones((48, 48), np.float16), "flat", "none")]
    settings = Settings(steps=500, learning_rate=3e-3, ema_decay=0.95, **TINY)
    trained = train(slices, tmp_path, settings)
    untrained = DenoisingUnet(settings.channels, settings.blocks)
    rng = np.random.default_rng(5)
    patches = np.stack([complex_patch(slices[0].image, 32, rng) for _ in range(32)])
    clean = torch.view_as_real(torch.from_numpy(patches)).permute(0, 3, 1, 2)
    generator = torch.Generator().manual_seed(0)
    sigma = log_normal_levels(32, generator)
    noise = torch.randn(clean.shape, generator=generator)
    before, after = (
        float(denoising_loss(model, clean, sigma, noise)[1]) for model in (untrained, trained)
    )
    assert after < 0.35 * before


def test_the_gradient_of_learning_from_a_teacher_vanishes_at_the_teacher():
    """While that of the mean square error against clean images does not."""
    torch.manual_seed(0)
    teacher = Settings(**TINY).network()
    pupil = Settings(**TINY).network()
    for network in (teacher, pupil):
        torch.nn.init.normal_(network.tail.weight, generator=torch.Generator().manual_seed(1))
    pupil.load_state_dict(teacher.state_dict())
    generator = torch.Generator().manual_seed(2)
    clean, noise = torch.randn((2, 4, 2, 32, 32), generator=generator)
    sigma = log_normal_levels(4, generator)
    sizes = []
    for taught in (teacher, None):
        loss, reported = denoising_loss(pupil, clean, sigma, noise, taught)
        pupil.zero_grad()
        loss.backward()
        sizes.append(float(pupil.tail.bias.grad[:8].norm()))  # of the mean, not of the variance
        assert float(reported) > 0.1
    assert sizes[0] < 1e-4 * sizes[1]


@pytest.mark.parametrize("architecture", ["unet", "ncsnv2", "residual-unet"])
def test_what_a_teacher_has_not_seen_is_learned_from_itself(architecture):
    sizes = {"width": 4, "levels": 20, "depth": "plain"} if architecture == "ncsnv2" else {}
    common = {k: v for k, v in TINY.items() if not sizes or k not in ("channels", "blocks")}
    loss = "signed" if architecture == "residual-unet" else "denoising"
    torch.manual_seed(0)
    # batch normalisation would let images see each other
    network = Settings(architecture=architecture, loss=loss, **sizes, **common).network().eval()
    teacher = load_prior("default").model
    generator = torch.Generator().manual_seed(3)
    clean, noise = torch.randn((2, 4, 2, 32, 32), generator=generator)
    sigma = log_normal_levels(4, generator)

    def learned(objective, chosen, *no_teacher):
        return float(
            objective(clean[chosen], sigma[chosen], noise[chosen], *no_teacher)[0].detach()
        )

    taught, alone = Objective(network, teacher), Objective(network)
    some = torch.tensor([True, False, False, True])
    none = torch.zeros(2, dtype=torch.bool)
    # each loss is a mean over the batch
    wanted = (learned(alone, some, none) + learned(taught, ~some, none)) / 2
    assert learned(taught, slice(None), some) == pytest.approx(wanted, rel=1e-3)
    assert learned(taught, some, none) != pytest.approx(learned(alone, some, none), rel=0.002)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_noise_that_a_teacher_expects_is_that_of_its_denoiser(sign):
    """E[noise | x] = (x - E[x0 | x]) / sigma, by the teacher's own denoised image."""
    teacher = load_prior("default").model
    generator = torch.Generator().manual_seed(3)
    clean, noise = torch.randn((2, 4, 2, 32, 32), generator=generator)
    sigma = sign * torch.tensor([0.1, 0.5, 3.0, SIGMA_RANGE[0] / 2])
    noisy = clean + sigma.view(-1, 1, 1, 1) * noise
    found = expected_noise(teacher, noisy, sigma, noise)
    skip, out, _ = teacher.preconditioning(sigma.abs())
    with torch.no_grad():
        denoised = skip * noisy + out * teacher.residual(noisy, sigma.abs())[0]
    wanted = (noisy - denoised) / sigma.view(-1, 1, 1, 1)
    difference = (found[:3] - wanted[:3]).square().mean((1, 2, 3)).sqrt()
    assert float(difference.max()) < 0.01  # bfloat16
    assert torch.equal(found[3], noise[3])  # less noise than teachers know


@pytest.mark.parametrize("architecture", ["ncsnv2", "residual-unet"])
def test_a_score_network_learns_from_a_teacher(architecture, tmp_path):
    """From a teacher of white Gaussian images of variance s^2: x sigma / (s^2 + sigma^2)."""
    teacher = DenoisingUnet(channels=(8, 8), blocks=(1, 1))
    for parameter in teacher.tail.parameters():
        torch.nn.init.zeros_(parameter)
    save_prior(tmp_path / "teacher.safetensors", teacher, {}, half=False)
    settings = Settings(
        architecture=architecture,
        loss="signed" if architecture == "residual-unet" else "denoising",
        teacher=str(tmp_path / "teacher.safetensors"),
        depth="plain", width=4, levels=20, sigma_begin=2.0, sigma_end=0.05,
        **{name: value for name, value in TINY.items() if name not in ("channels", "blocks")},
    )  # fmt: skip
    network, taught = settings.network(), settings.load_teacher()
    generator = torch.Generator().manual_seed(2)
    clean, noise = torch.randn((2, 4, 2, 32, 32), generator=generator)
    sigma = signed_levels(4, 0.5, generator).abs().clamp(min=0.05)
    no_teacher = torch.zeros(4, dtype=torch.bool)
    loss, reported = Objective(network, taught)(clean, sigma, noise, no_teacher)
    level = sigma.view(-1, 1, 1, 1)
    noisy = clean + level * noise
    wanted = noisy * level / (level**2 + teacher.sigma_data**2)
    with torch.no_grad():
        score = network(noisy, sigma) if architecture == "residual-unet" else None
        scaled = network.unscaled(noisy) if score is None else level * score
    per = 1.0 if architecture == "residual-unet" else clean[0].numel() / 2
    assert float(loss.detach()) / per == pytest.approx(
        float((scaled + wanted).square().mean()), rel=0.02
    )
    assert float(reported) == pytest.approx(float((scaled + noise).square().mean()), rel=0.02)


def test_a_network_begins_with_the_first_blocks_of_a_deeper_one(tmp_path):
    deep = Settings(**(TINY | {"blocks": (2, 1)})).network()
    for parameter in deep.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    path = tmp_path / "deep.safetensors"
    save_prior(path, deep, {}, half=False)
    shallow = Settings(start=str(path), **TINY).network()
    weights = deep.state_dict()
    for name, value in shallow.state_dict().items():
        assert torch.equal(value, weights[name])


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    slices = [Slice(np.full((48, 48), np.nan, np.float16), "s", "")]
    with pytest.raises(InputError, match="step 0: the loss is nan"):
        train(slices, tmp_path, Settings(steps=2, **TINY))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": (1, 1, 1)}, "channels 16,16, blocks 1,1,1: expected as many"),
        ({"patch": 42}, "patch is 42: expected a multiple of 4"),
        ({"start": "default"}, "start 'default': expected a prior of the same"),
        ({"channels": (0, 16)}, "channels '0,16'"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Settings(**{**TINY, **changes}).network()


def test_a_teacher_of_another_architecture_is_refused(tmp_path):
    other = Settings(**(TINY | {"architecture": "residual-unet"})).network()
    save_prior(tmp_path / "other.safetensors", other, {})
    settings = Settings(**TINY, teacher=str(tmp_path / "other.safetensors"))
    with pytest.raises(InputError, match="': expected a prior of the architecture unet"):
        settings.load_teacher()


def test_settings_are_read_back_from_earlier_versions():
    settings = Settings(steps=7, start="default", teacher="RUN/other.safetensors", **TINY)
    assert Settings.from_json(settings.to_json()) == settings
    assert Settings.from_json('{"steps": 3, "blocks": [1, 2], "gone": 1}') == Settings(
        steps=3, blocks=(1, 2)
    )
    assert settings.command == (
        "scoremri train --data DATA -o RUN --steps 7 --batch 4 --patch 32 --learning-rate 0.001 "
        "--seed 0 --channels 16,16 --blocks 1,1 --start default --teacher other"
    )


def test_an_unfinished_run_becomes_a_prior(tmp_path):
    settings = Settings(steps=6, checkpoint_every=2, teacher="default", **TINY)

    def stop(step, loss):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(textures(), tmp_path, settings, stop)
    source = Source(tmp_path / "a.nii", "anna", "train", "T1W", "MIT")
    card.write_prior(tmp_path / CHECKPOINT, tmp_path / "mine.safetensors", [source])
    prior = load_prior(tmp_path / "mine.safetensors")
    assert prior.card["steps"] == 4
    last = json.loads((tmp_path / LOG).read_text().splitlines()[-1])
    assert prior.card["final_loss"] == last["loss"]
    assert prior.card["training_data"] == [
        {"subject": "anna", "contrasts": "T1W", "licence": "MIT"}
    ]
    assert prior.card["teacher"]["sha256"] == load_prior("default").card["sha256"]
    average = read_checkpoint(tmp_path / CHECKPOINT)["average"]
    for name, value in prior.model.state_dict().items():
        torch.testing.assert_close(value, average[name], rtol=1e-3, atol=1e-6)


def test_what_is_no_checkpoint_is_named(tmp_path):
    (tmp_path / "text.pt").write_text("no checkpoint")
    torch.save({"step": 3}, tmp_path / "other.pt")
    for name, message in (
        ("text", "not a checkpoint"),
        ("other", "not a checkpoint"),
        ("no", "no su"),
    ):
        with pytest.raises(InputError, match=message):
            read_checkpoint(tmp_path / f"{name}.pt")


@pytest.mark.cuda
def test_a_gpu_trains_as_the_cpu_does(tmp_path):
    losses = []
    for device in ("cpu", "cuda"):
        train(textures(), tmp_path / device, Settings(steps=4, device=device, **TINY))
        losses.append(json.loads((tmp_path / device / LOG).read_text())["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
