"""Checkpoints as the public code bases write them, and files that are none."""

import os

import pytest
import torch

from scoremri_core.errors import InputError
from scoremri_core.priors.checkpoints import read_foreign
from scoremri_core.priors.ncsnv2 import LAYOUTS, NCSNv2
from scoremri_core.priors.ncsnv2_prior import NCSNv2Prior


@pytest.fixture
def model():
    model = NCSNv2("deeper", ngf=2, levels=4)
    model.sigmas.copy_(torch.tensor([8.0, 2.0, 0.5, 0.125]))
    return model


@pytest.fixture
def average(model):
    """What the original's EMAHelper keeps: the parameters, no buffer, no prefix."""
    return {name: p.data + 1 for name, p in model.named_parameters()}


@pytest.fixture
def optimiser(model):
    optimiser = torch.optim.Adam(model.parameters(), 1e-4)
    model.unscaled(torch.ones(1, 2, 16, 16)).sum().backward()
    optimiser.step()
    return optimiser.state_dict()


def saved(folder, content):
    path = folder / "checkpoint.pth"
    torch.save(content, path)
    return path


def prefixed(state):
    return {f"module.{name}": value for name, value in state.items()}


def same(found, state):
    got = found.model.state_dict()
    return all(torch.equal(got[name], value) for name, value in state.items())


def test_list_of_the_public_code_gives_its_average(model, average, optimiser, tmp_path):
    state = torch.nn.DataParallel(model).state_dict()
    assert all(name.startswith("module.") for name in state)
    found = read_foreign(saved(tmp_path, [state, optimiser, 3, 100_000, average]))
    assert (found.weights, found.epoch, found.step) == ("moving average", 3, 100_000)
    assert found.model.config == model.config
    assert same(found, average)
    assert torch.equal(found.model.sigmas, model.sigmas)
    assert not found.model.training


def test_list_without_average_gives_the_last_step(model, optimiser, tmp_path):
    found = read_foreign(saved(tmp_path, [prefixed(model.state_dict()), optimiser, 3, 10]))
    assert found.weights == "last step"
    assert same(found, model.state_dict())


@pytest.mark.parametrize(
    "content",
    [
        lambda state, average: {"model_state": state, "ema_state": average, "step": 5},
        lambda state, average: {"state_dict": prefixed(state), "ema": prefixed(average)},
        lambda state, average: {"model": state, "ema": {"mu": 0.999, "shadow": average}},
        lambda state, average: (prefixed(state), {}, 0, 5, average),
    ],
)
def test_mappings_and_tuples_give_their_average(model, average, content, tmp_path):
    found = read_foreign(saved(tmp_path, content(model.state_dict(), average)))
    assert found.weights == "moving average"
    assert same(found, average)


def test_a_state_alone_is_enough(model, tmp_path):
    found = read_foreign(saved(tmp_path, model.state_dict()))
    assert found.weights == "last step"
    assert same(found, model.state_dict())


@pytest.mark.parametrize("prefix", ["model.", "_orig_mod.", "module.model.", "net._orig_mod."])
def test_what_wrappers_put_before_the_names_is_left_out(model, average, prefix, tmp_path):
    """Lightning, torch.compile, and a module of one's own."""
    state = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
    assert same(read_foreign(saved(tmp_path, {"state_dict": state})), model.state_dict())
    shadow = {f"{prefix}{name}": value for name, value in average.items()}
    found = read_foreign(saved(tmp_path, {"model": model.state_dict(), "ema": shadow}))
    assert same(found, average)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(model, value, tmp_path):
    state = model.state_dict()
    state["end_conv.bias"][1] = value
    with pytest.raises(
        InputError, match=r"checkpoint\.pth: 'end_conv\.bias' holds values that are"
    ):
        read_foreign(saved(tmp_path, state))


def test_the_order_of_the_noise_levels_changes_nothing(model, tmp_path):
    x = torch.randn(2, 16, 16, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    sigma = torch.tensor([0.05, 1.0])
    images = []
    for _ in range(2):
        found = read_foreign(saved(tmp_path, model.state_dict())).model
        images.append(NCSNv2Prior(found, {"name": "levels"}).denoise(x, sigma))
        model.sigmas.copy_(model.sigmas.flip(0))
    assert torch.equal(*images)


def test_a_rate_is_no_average(model, tmp_path):
    found = read_foreign(saved(tmp_path, {"model": model.state_dict(), "ema": 0.999}))
    assert found.weights == "last step"
    assert same(found, model.state_dict())


def test_the_average_need_not_hold_every_parameter(model, average, tmp_path):
    del average["end_conv.bias"]
    found = read_foreign(saved(tmp_path, [model.state_dict(), {}, 0, 0, average]))
    assert same(found, average)
    assert torch.equal(found.model.end_conv.bias, model.end_conv.bias)


@pytest.mark.parametrize("variant", LAYOUTS)
@pytest.mark.parametrize(("channels", "ngf", "rescaled"), [(2, 3, False), (1, 2, True)])
def test_depth_and_width_follow_from_the_weights(variant, channels, ngf, rescaled, tmp_path):
    model = NCSNv2(variant, ngf, channels, 7, rescaled)
    found = read_foreign(saved(tmp_path, model.state_dict()), rescaled)
    assert found.model.config == model.config
    x = torch.rand(1, channels, 24, 17, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(found.model.unscaled(x), model.unscaled(x))


def test_half_precision_is_read_as_single(model, tmp_path):
    state = {name: value.half() for name, value in model.state_dict().items()}
    found = read_foreign(saved(tmp_path, state))
    assert {value.dtype for value in found.model.state_dict().values()} == {torch.float32}


def test_random_numbers_are_left_alone(model, tmp_path):
    path = saved(tmp_path, model.state_dict())
    torch.manual_seed(0)
    read_foreign(path)
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))


class Malicious:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_refused_and_does_not_run(
    model, average, legacy, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    content = [model.state_dict(), {}, 0, Malicious(), average]
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match=r"evil\.pth: contains (posix|nt)\.system"):
        read_foreign(path)
    assert not (tmp_path / "pwned").exists()


def test_a_configuration_in_the_checkpoint_is_named(model, tmp_path):
    import argparse

    path = saved(tmp_path, {"model_state": model.state_dict(), "config": argparse.Namespace(a=1)})
    with pytest.raises(InputError, match=r"argparse\.Namespace.*state dictionaries"):
        read_foreign(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(99)])
def test_what_is_no_checkpoint_is_refused(content, tmp_path):
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"file\.pth: expected"):
        read_foreign(path)


def test_half_a_file_is_refused(model, tmp_path):
    path = saved(tmp_path, model.state_dict())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"checkpoint\.pth: expected"):
        read_foreign(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.pth: no such file"):
        read_foreign(tmp_path / "absent.pth")


def edited(change):
    def content(state):
        state = dict(state)
        change(state)
        return state

    return content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda state: 5, "begin_conv"),
        (lambda state: [], "begin_conv"),
        (lambda state: {"weight": torch.ones(3)}, "begin_conv"),
        (edited(lambda state: state.pop("sigmas")), "'sigmas', are missing"),
        (edited(lambda state: state.update(sigmas=torch.ones(3, 2))), "'sigmas'"),
        (edited(lambda state: state.update(sigmas=torch.tensor([1.0, 0.0]))), "'sigmas'"),
        (edited(lambda state: state.pop("end_conv.bias")), "'end_conv.bias'.*missing"),
        (edited(lambda state: state.update(extra=torch.ones(1))), "'extra' is no parameter"),
        (edited(lambda state: state.update({"end_conv.bias": torch.ones(3)})), r"shape \(3,\)"),
    ],
)
def test_what_is_no_ncsnv2_is_named(model, content, words, tmp_path):
    with pytest.raises(InputError, match=rf"checkpoint\.pth: .*{words}"):
        read_foreign(saved(tmp_path, content(model.state_dict())))
