"""Networks that others would use: operators, invariances, training."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from scoremri_core import load_prior
from scoremri_core.errors import InputError
from scoremri_core.mri import classical
from scoremri_core.mri.fourier import to_kspace
from scoremri_core.mri.sense import SenseOperator
from scoremri_core.simulation.masks import make_mask
from scoremri_core.studies.methods import FIXED_LAMBDA, NETWORKS, conv_decoder, peers
from scoremri_core.studies.methods.blocks import SmallUnet, as_channels, as_complex
from scoremri_core.studies.methods.examples import Examples
from scoremri_core.studies.methods.modl import Modl
from scoremri_core.studies.methods.networks import Training, build, train
from scoremri_core.studies.methods.problem import Problem
from scoremri_core.studies.methods.registry import l1_wavelet
from scoremri_core.studies.methods.updnet import UpdNet
from scoremri_core.training.slices import Slice

OPTIONS = {
    "varnet": {"width": 4, "cascades": 1},
    "modl": {"width": 4, "turns": 2, "layers": 2, "iterations": 20},
    "updnet": {"width": 4, "turns": 1},
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def truth():
    """An image (y, x) of odd and even sides."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[-1:1:33j, -1:1:32j]
    image = ((y**2 + x**2 < 0.7) * (1 + 0.3 * np.sin(6 * x + 4 * y))).astype(complex)
    return (image * np.exp(1j * y) + 0.02 * rng.normal(size=image.shape)).astype(np.complex64)


@pytest.fixture(scope="module")
def maps(truth):
    rng = np.random.default_rng(4)
    y, x = np.mgrid[-1:1:33j, -1:1:32j]
    coils = [
        np.exp(1j * (a + b * y + c * x) + b * x - c * y) for a, b, c in rng.normal(size=(4, 3))
    ]
    return (coils / np.linalg.norm(coils, axis=0)).astype(np.complex64)


@pytest.fixture(scope="module")
def problem(truth, maps):
    lines = make_mask("equispaced", (33,), 2, 9).sampled[:, None]
    return Problem((to_kspace(maps * truth) * lines).astype(np.complex64), maps, 7)


@pytest.fixture(scope="module")
def prior():
    return load_prior("default")


@pytest.fixture(scope="module")
def examples():
    y, x = np.mgrid[-1:1:40j, -1:1:40j]
    images = [((y**2 + x**2 < r) * (1 + x * y)).astype(np.float16) for r in (0.5, 0.6)]
    return Examples([Slice(i, "s", "T1") for i in images], 2, 32, 3, "40%", (1.5, 2.0), 0)


def without_changes(model):
    """The same with all that is learned adding nothing."""
    with torch.no_grad():
        for name, own in model.named_parameters():
            if name != "log_lambda":
                own.zero_()
    return model


def test_modl_solves_its_equation(problem, truth):
    """With D(x) = x it is proximal iteration, which comes to the SENSE solution."""
    model = without_changes(Modl(4, turns=4, layers=2, iterations=40))
    kspace, maps, mask = problem.tensors(CPU)
    with torch.no_grad():
        image = model(kspace, maps, mask)[0].numpy() * problem.scale
    assert np.linalg.norm(image - truth) < 0.02 * np.linalg.norm(truth)
    assert np.linalg.norm(problem.zero_filled - truth) > 0.05 * np.linalg.norm(truth)


def test_the_conjugate_gradients_of_modl_are_a_solver(problem):
    model = Modl(2, layers=2, iterations=60)
    kspace, maps, mask = problem.tensors(CPU)
    operator = SenseOperator(maps[:, None], mask)
    target = operator.adjoint(kspace[:, None])
    weight = torch.tensor(0.3)
    x = model._solve(operator, target, target, weight)
    left = operator.normal(x) + weight * x - target
    assert left.abs().max() < 1e-4 * target.abs().max()


def test_updnet_without_learning_is_the_adjoint(problem):
    model = without_changes(UpdNet(4, turns=2))
    image = model(*problem.tensors(CPU))[0].detach().numpy() * problem.scale
    np.testing.assert_allclose(image, problem.zero_filled, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_reach_every_weight(name, problem):
    if name == "varnet":
        pytest.importorskip("monai")
    model = build(name, OPTIONS[name])
    image = model(*problem.tensors(CPU))
    assert image.shape == (1, 33, 32)
    image.abs().sum().backward()
    # a bias before normalisation has none, nor has a data consistency that begins with the data
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert all("bias" in n or n == "cascades.0.dc_weight" for n in dead), dead
    assert len(dead) < len(list(model.parameters())) / 2
    again = build(name, OPTIONS[name])
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_varnet_sees_the_same_transform_as_we_do(problem):
    """MONAI's centred FFT is ours, on odd and even sides."""
    pytest.importorskip("monai")
    from monai.networks.blocks.fft_utils_t import fftn_centered_t

    image = torch.from_numpy(problem.maps)
    theirs = torch.view_as_complex(fftn_centered_t(torch.view_as_real(image), 2).contiguous())
    torch.testing.assert_close(theirs, to_kspace(image), atol=1e-5, rtol=1e-4)


def test_varnet_without_monai_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.apps.reconstruction.networks.blocks.varnetblock", None)
    with pytest.raises(InputError, match="`compare`"):
        build("varnet", OPTIONS["varnet"])


def test_unet_takes_any_size():
    unet = SmallUnet(3, 2, 4)
    assert unet(torch.randn(1, 3, 21, 34)).shape == (1, 2, 21, 34)
    x = torch.randn(2, 5, 6, dtype=torch.complex64)
    torch.testing.assert_close(as_complex(as_channels(x)), x)


def test_training_is_resumed_and_kept(examples, tmp_path):
    def trained(folder, steps, minutes=1.0):
        settings = Training(steps, minutes, 32, 3, 2, options=OPTIONS)
        return train("modl", lambda: examples, settings, folder, CPU)

    whole = trained(tmp_path / "a", 6)
    again = trained(tmp_path / "a", 6)
    assert (whole.steps, again.steps) == (6, 6)
    assert again.seconds == whole.seconds
    other = trained(tmp_path / "b", 6)
    for one, kept, two in zip(
        whole.model.parameters(), again.model.parameters(), other.model.parameters(), strict=True
    ):
        torch.testing.assert_close(one, kept, atol=0, rtol=0)
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-5)
    with pytest.raises(InputError, match="other settings"):
        trained(tmp_path / "a", 7)
    (tmp_path / "a" / "modl.pt").write_text("nothing")
    with pytest.raises(InputError, match=r"modl\.pt: expected a network"):
        trained(tmp_path / "a", 6)


def test_examples_depend_on_seed_and_step_alone(examples):
    other = Examples(examples.slices, 2, 32, 3, "40%", (1.5, 2.0), 0)
    for step in (3, 0):
        (one, mask), (two, same) = examples.drawn(step), other.drawn(step)
        np.testing.assert_array_equal(one.kspace, two.kspace)
        np.testing.assert_array_equal(mask, same)
        assert mask.size / mask.sum() == pytest.approx(1.75, abs=0.5)
    assert not np.array_equal(examples[0].kspace, examples[1].kspace)
    np.testing.assert_allclose(
        examples[0].target, np.abs(classical.mvue(examples[0].kspace, examples[0].maps)), rtol=1e-5
    )


def test_decoder_fits_the_data_and_keeps_them(problem, truth):
    short = conv_decoder.reconstruct(problem, CPU, iterations=1, width=8)
    long = conv_decoder.reconstruct(problem, CPU, iterations=80, width=8)
    again = conv_decoder.reconstruct(problem, CPU, iterations=80, width=8)
    np.testing.assert_allclose(long.image, again.image, atol=1e-3 * np.abs(truth).max())

    def error(answer):
        return np.linalg.norm(answer.image - truth) / np.linalg.norm(truth)

    assert error(long) < error(short)


def test_l1_wavelet_has_one_weight(problem):
    answer = l1_wavelet(problem)
    expected = classical.l1_wavelet(problem.kspace, problem.maps, FIXED_LAMBDA)
    # FFTs sum in no fixed order
    np.testing.assert_allclose(answer.image, expected, atol=1e-3 * np.abs(expected).max())


def test_units_of_peers_are_undone(truth):
    image = torch.from_numpy(truth)[None]
    planes = peers.to_unit(image, 1.5)
    assert 0 < planes.min() < planes.max() < 1
    torch.testing.assert_close(peers.from_unit(planes, 1.5), image, atol=1e-6, rtol=1e-5)


# where it is installed it has to work, beside any torch
needs_deepinverse = pytest.mark.skipif(
    find_spec("deepinv") is None, reason="DeepInverse is not installed"
)


@needs_deepinverse
def test_peers_see_the_same_operator_and_prior(problem, prior):
    _, maps, mask = problem.tensors(CPU)
    physics = peers.linear_physics(SenseOperator(maps[:, None], mask), 0.1)
    x, y = torch.randn(1, 2, 33, 32), torch.randn(1, 4, 33, 32, 2)
    assert (physics.A(x) * y).sum() == pytest.approx(
        float((x * physics.A_adjoint(y)).sum()), rel=1e-3
    )
    # with gradients, in single precision, and without
    theirs = peers.CountingDenoiser(prior, 2.0)
    image = 0.5 + 0.1 * torch.randn(1, 2, 33, 32)
    without = theirs(image, 0.05)
    with_gradients = theirs(image.clone().requires_grad_(), 0.05)
    torch.testing.assert_close(with_gradients.detach(), without, atol=0.005, rtol=0)
    expected = prior.denoise(peers.from_unit(image, 2.0), torch.tensor([0.2]))
    torch.testing.assert_close(peers.from_unit(without, 2.0), expected, atol=1e-5, rtol=0)
    # above the network's levels the image is all but gone
    assert (theirs(image, 50.0) - 0.5).abs().max() < 0.02
    assert theirs.evaluations == 3


@needs_deepinverse
def test_peers_are_drawn_by_their_seed_and_come_near_the_truth(problem, prior, truth):
    def error(image):
        return np.linalg.norm(image - truth) / np.linalg.norm(truth)

    for name, evaluations, most in (("DPS", 24, 0.3), ("DiffPIR", 25, 0.1)):
        answer = peers.samplers(prior, 2, 25, CPU)[name](problem)
        assert answer.samples.shape == (2, 33, 32)
        assert not np.array_equal(*answer.samples)
        assert error(answer.image) < most
        assert answer.evaluations == evaluations
    again = peers.samplers(prior, 1, 25, CPU)["DiffPIR"](problem)
    np.testing.assert_allclose(again.samples[0], answer.samples[0], atol=1e-3)


def test_what_cannot_be_run_is_told(monkeypatch):
    missing = list(peers.missing())
    assert any("DDRM" in line for line in missing)
    monkeypatch.setattr(peers.shutil, "which", lambda name: None)
    assert any("not installed" in line for line in peers.missing())
    monkeypatch.setattr(peers.shutil, "which", lambda name: "/bin/false")
    monkeypatch.setattr(
        peers.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 1, "", "")
    )
    assert any("0.8" in line for line in peers.missing())
    monkeypatch.setitem(sys.modules, "deepinv", None)
    assert "DeepInverse" in next(peers.missing())
    assert peers.samplers(None, 2, 2, CPU) == {}
