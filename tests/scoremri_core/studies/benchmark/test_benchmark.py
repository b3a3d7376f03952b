"""The benchmark's figures, apart from the times themselves."""

import itertools
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from scoremri_core import reconstruct
from scoremri_core.errors import InputError
from scoremri_core.mri.classical import cg_sense, mvue
from scoremri_core.mri.coils.maps import estimate_coil_maps
from scoremri_core.mri.fourier import to_kspace
from scoremri_core.mri.noise.covariance import covariance_from_edges
from scoremri_core.priors.base import SpectralDenoiser, VarianceDenoiser
from scoremri_core.priors.gaussian import GaussianPrior
from scoremri_core.priors.network import NetworkPrior
from scoremri_core.priors.unet import DenoisingUnet
from scoremri_core.samplers.langevin import LangevinOptions
from scoremri_core.scans.files import write_scan
from scoremri_core.score.metrics import psnr
from scoremri_core.simulation.simulation import SimulatedScan
from scoremri_core.studies.benchmark import methods, report, workers
from scoremri_core.studies.benchmark.bart import Bart, NotInstalledError
from scoremri_core.studies.benchmark.case import Case, Measurement, from_file, simulated
from scoremri_core.studies.benchmark.floor import (
    Convolution,
    count_flops,
    evaluation_flops,
    heaviest_convolutions,
)
from scoremri_core.studies.benchmark.memory import own_high_water
from scoremri_core.studies.benchmark.stopwatch import Stopwatch

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def case():
    return simulated((3, 48, 40), 2, 16, seed=0, samples=2, steps=2, langevin_levels=1)


@pytest.fixture
def network():
    return NetworkPrior(DenoisingUnet((8, 16), (1, 1), 32), {"name": "tiny"})


# the frame


def test_simulated_frame_is_the_phantom_seen_through_every_other_line(case):
    scan = SimulatedScan((48, 40), 3, oversampling=1)
    received = np.any(case.kspace != 0, axis=(0, 2))
    np.testing.assert_array_equal(case.truth, scan.image[0])
    assert case.true_acceleration == pytest.approx(48 / received.sum())
    assert received[16:32].all()
    error = case.kspace - to_kspace(scan.coil_maps[0] * case.truth)
    noise = np.mean(np.abs(error[:, received]) ** 2)
    assert noise == pytest.approx(np.trace(scan.noise_covariance).real / 3, rel=0.05)


def test_frame_of_a_file_has_the_mvue_for_truth(tmp_path):
    scan = SimulatedScan((48, 40), 3, slices=2)
    write_scan(tmp_path / "full.h5", scan.header, scan)
    case = from_file(tmp_path / "full.h5", 1, 2, 16, seed=0)
    assert case.kspace.shape == (3, 48, 40)
    assert psnr(case.truth, scan.image[1]) > 25
    with pytest.raises(InputError, match="slice 2: expected 0 to 1"):
        from_file(tmp_path / "full.h5", 2, 2, 16, seed=0)


def test_calibration_square_is_centred_on_dc():
    kspace = np.arange(2 * 9 * 8, dtype=np.complex64).reshape(2, 9, 8) + 1
    square = Case("", kspace, kspace[0], 1, calibration=4).calibration_square
    expected = np.zeros_like(kspace)
    expected[:, 2:6, 2:6] = kspace[:, 2:6, 2:6]
    np.testing.assert_array_equal(square, expected)


# the floor


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 4)])
def test_flops_of_a_convolution(stride, groups):
    convolution = Convolution(8, 12, (3, 3), (stride,) * 2, (1, 1), (1, 1), groups, (10, 14))
    outputs = 12 * (10 // stride) * (14 // stride)
    assert convolution.flops() == 2 * outputs * (8 // groups) * 9


def test_rate_is_of_all_images_of_the_batch(monkeypatch):
    """A clock that tells one second for every run."""
    convolution = Convolution(4, 4, (1, 1), (1, 1), (0, 0), (1, 1), 1, (5, 5))
    ticks = iter(range(100))
    monkeypatch.setattr(
        "scoremri_core.studies.benchmark.floor.time.perf_counter", lambda: next(ticks)
    )
    assert convolution.rate(3, torch.float32, CPU) == 3 * 2 * 4 * 4 * 25


def test_flops_of_a_network_in_closed_form(network):
    """Two scales of one block each way; 14 x 15 pixels are padded to 16 x 16."""
    half, quarter = 8 * 8, 4 * 4  # pixels at each scale
    blocks = 2 * 2 * 9 * (8 * 8 * half + 16 * 16 * quarter)
    ends = 9 * (8 * 8 + 8 * 12) * half
    resampling = 2 * 4 * 8 * 16 * quarter
    embedding = 2 * 32 * 32 + 2 * 32 * 2 * (8 + 16)
    expected = 2 * (blocks + ends + resampling + embedding)
    assert evaluation_flops(network, (14, 15)) == expected
    assert evaluation_flops(network, (32, 16)) > 1.9 * expected


def test_heaviest_convolutions_are_those_of_the_blocks(network):
    found = heaviest_convolutions(network, (16, 16))
    assert [(c.channels_in, c.channels_out, c.shape) for c in found[:2]] == [
        (8, 8, (8, 8)),
        (16, 16, (4, 4)),
    ]
    assert not network.model.head._forward_hooks


def test_floor_from_flops_and_rates():
    default = report.Timing("scoremri", seconds=10.0, coil_maps=0.5, denoiser=8.0, evaluations=12)
    rates = [
        Measurement(1, details={"flops": 10**9, "rates": rate, "convolutions": []})
        for rate in (
            {"bfloat16": 96e9, "float32": 20e9},
            {"bfloat16": 48e9, "float32": 30e9},
            {"bfloat16": 40e9, "float32": 10e9},
        )
    ]
    floor = report.floor(default, rates, samples=8)
    assert floor["rates"] == {"bfloat16": 48e9, "float32": 20e9}
    assert floor["seconds"] == pytest.approx(12 * 8 / 48)
    assert floor["denoiser_fraction"] == pytest.approx(2 / 8)
    assert floor["frame_fraction"] == pytest.approx(2 / 10)
    assert floor["overhead"] == pytest.approx(0.2)
    assert floor["coil_maps"] == pytest.approx(0.05)
    assert report.floor(default, "not today", 8) == {"note": "not today"}


# the stopwatch


def test_timed_twin_offers_what_the_prior_does(network):
    gaussian = GaussianPrior(torch.ones(16, 16))
    for prior in (network, gaussian):
        twin = Stopwatch(CPU).around(prior)
        assert type(twin) is type(prior)
        for protocol in (VarianceDenoiser, SpectralDenoiser):
            assert isinstance(twin, protocol) == isinstance(prior, protocol)


def test_stopwatch_counts_a_call_within_a_call_once(network):
    watch = Stopwatch(CPU)
    twin = watch.timed(network)
    x = torch.randn(3, 16, 16, dtype=torch.complex64)
    sigma = torch.full((3,), 0.5)
    assert torch.equal(twin.denoise(x, sigma), network.denoise(x, sigma))
    twin.denoise_with_variance(x[:2], sigma[:2])
    assert watch.images == [3, 2]
    assert len(watch.starts) == len(watch.seconds) == 2
    watch.clear()
    assert watch.images == []


# the rows


def test_default_row_is_what_reconstruct_gives(case):
    found = methods.posterior(case)()
    result = reconstruct(case.kspace, samples=2, steps=2, device="cpu")
    np.testing.assert_allclose(found.output, result.mean[0], rtol=1e-4, atol=1e-4)
    assert found.evaluations == 2
    assert sum(found.parts.values()) == pytest.approx(found.seconds)


def test_batch_row_evaluates_each_frame_as_often(case):
    found = methods.posterior_batch(replace(case, frames=3, steps=1))()
    assert found.evaluations == 1
    assert sum(found.parts.values()) == pytest.approx(found.seconds)


def test_langevin_row_is_scaled_to_its_full_count(case, monkeypatch):
    ticks = itertools.count()  # a second from each look at the clock to the next
    monkeypatch.setattr(Stopwatch, "now", lambda watch: float(next(ticks)))
    full = LangevinOptions()
    found = methods.langevin(case)()
    assert found.evaluations == len(full.schedule()) == 3975
    # one level alone is the last, which has four steps
    assert "4 evaluations" in found.note
    assert sum(found.parts.values()) == pytest.approx(found.seconds)
    # one look before the first evaluation; at each, one as it begins and one as it ends
    assert found.details["measured_seconds"] == 9
    assert found.seconds == 1 + 2 * 3975
    assert found.parts["denoiser"] == 3975
    assert methods.scaled(2.0, 0.5, 3465) == 1734.5


def test_frame_that_cannot_be_sampled_is_no_row(case):
    kspace = case.kspace.copy()
    kspace[:, 16:32] = 0
    with pytest.raises(RuntimeError, match=r"no samples: .*calibration"):
        methods.posterior(replace(case, kspace=kspace))


def test_weight_is_the_one_closest_to_the_truth(case):
    tried = []

    def run(weight):
        tried.append(weight)
        return Measurement(1, output=case.truth * (1 + abs(weight - 0.01)))

    again = methods._best_weight(case, run)
    assert tried == list(methods.LAMBDAS)
    again()
    assert tried[-1] == 0.01


def test_coil_maps_of_all_packages_agree():
    square = simulated((4, 64, 60), 2, 24, seed=0)
    found = {name: [methods.COIL_MAPS[name](square)()] for name in ("scoremri", "SigPy")}
    rows = report.coil_map_rows(square, {**found, "BART": "not installed"})
    assert [row.method for row in rows] == ["scoremri", "SigPy", "BART"]
    assert rows[0].similarity_1st_percentile == pytest.approx(1, abs=1e-6)
    assert rows[1].similarity_median > 0.9999
    assert rows[1].similarity_1st_percentile > 0.998
    assert (rows[2].seconds, rows[2].note) == (None, "not installed")


def test_similarity_ignores_phase_and_size():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(4, 5, 6)) + 1j * rng.normal(size=(4, 5, 6))
    phase = 3 * np.exp(1j * rng.uniform(0, 6, (5, 6)))
    np.testing.assert_allclose(report.similarity(maps, maps * phase), 1)
    first, second = np.zeros((2, 2, 1, 2))
    first[0], second[1] = 1, (1, 0)  # orthogonal, and vanishing
    np.testing.assert_array_equal(report.similarity(first, second), [[0, 0]])
    second[0, 0, 0] = 1  # 45 degrees apart
    assert report.similarity(first, second)[0, 0] == pytest.approx(2**-0.5)


def test_ratio_is_the_median_of_the_rounds_own(case):
    found = {
        "scoremri": [Measurement(s, evaluations=12) for s in (1.0, 10.0, 4.0)],
        "CG-SENSE": [Measurement(s, output=case.truth / 2) for s in (3.0, 20.0, 16.0)],
        "L1-wavelet (BART)": "not installed",
    }
    default, sense, bart = report.frame_rows(case, found)
    assert (default.seconds, default.ratio) == (4.0, 1.0)
    assert default.seconds_per_sample == 4.0 / case.samples
    assert (sense.seconds, sense.ratio, sense.seconds_per_sample) == (16.0, 3.0, None)
    assert sense.psnr == pytest.approx(psnr(case.truth / 2, case.truth))
    assert (bart.seconds, bart.note) == (None, "not installed")


# the processes


def test_rows_take_turns_in_alternating_order(case, monkeypatch):
    log = []

    class Fake:
        def __init__(self, group, name, threads):
            self.name, self.failure = name, None

        def __enter__(self):
            return self

        def __exit__(self, *_):
            log.append(f"end {self.name}")

        def prepare(self, case):
            log.append(f"warm {self.name}")

        def answer(self):
            return None

        def run(self):
            log.append(self.name)
            return Measurement(1.0)

    monkeypatch.setattr(workers, "Worker", Fake)
    found = workers.measure("frame", ["a", "b"], case, 3)
    assert log == ["warm a", "warm b", "a", "b", "b", "a", "a", "b", "end b", "end a"]
    assert {name: len(runs) for name, runs in found.items()} == {"a": 3, "b": 3}


def test_row_in_a_process_of_its_own_gives_what_it_gives_here(case, monkeypatch, capfd):
    monkeypatch.setenv("PATH", "/nowhere")
    names = ["CG-SENSE", "L1-wavelet (BART)", "no such row"]
    found = workers.measure("frame", names, case, 1, threads=1)
    (sense,) = found["CG-SENSE"]
    covariance = covariance_from_edges(case.kspace)
    maps = estimate_coil_maps(case.kspace, noise_covariance=covariance)[0]
    np.testing.assert_allclose(sense.output, cg_sense(case.kspace, maps), rtol=1e-3, atol=1e-4)
    assert "not installed" in found["L1-wavelet (BART)"]
    assert found["no such row"] == "failed: its process ended with 1"
    assert "KeyError" in capfd.readouterr().err


def test_peak_memory_is_the_process_own():
    """The interpreter alone is far smaller than this process; an array that was freed counts."""
    program = (
        "import sys; from scoremri_core.studies.benchmark.memory import own_high_water\n"
        "a = own_high_water(); b = bytearray(200 * 2**20); b[::4096] = b[::4096]; del b\n"
        "print(a, own_high_water())"
    )
    ballast = bytearray(100 * 2**20)
    before, after = map(float, subprocess.check_output([sys.executable, "-c", program]).split())
    del ballast
    assert 1 < before < 80 < own_high_water()
    assert after - before == pytest.approx(200, abs=20)


# BART


@pytest.mark.skipif(shutil.which("bart") is None, reason="BART is not installed")
def test_bart_takes_and_gives_arrays_as_they_are():
    rng = np.random.default_rng(0)
    image = (rng.normal(size=(3, 9, 8)) + 1j * rng.normal(size=(3, 9, 8))).astype(np.complex64)
    with Bart() as bart:
        bart.put("image", image)
        np.testing.assert_array_equal(bart.get("image"), image)
        assert bart.run("fft", "-u", "3", "image", "kspace") > 0
        np.testing.assert_allclose(bart.get("kspace"), to_kspace(image), atol=1e-5)
        with pytest.raises(RuntimeError, match="bart fft: "):
            bart.run("fft", "3", "absent", "kspace")


@pytest.mark.skipif(shutil.which("bart") is None, reason="BART is not installed")
def test_bart_rows(case):
    found = methods.bart_pics(case)()
    maps = methods.bart_ecalib(case)()
    zero_filled = mvue(case.kspace, maps.output)
    assert psnr(found.output, case.truth) > psnr(zero_filled, case.truth) + 1
    assert found.memory is None or 1 < found.memory < 500


def test_bart_tells_why_it_failed(tmp_path, monkeypatch):
    tool = tmp_path / "bart"
    tool.write_text("#!/bin/sh\necho 'out of luck' >&2\nexit 3\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with Bart() as bart, pytest.raises(RuntimeError, match="bart pics: out of luck"):
        bart.run("pics", "a", "b")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotInstalledError, match="Debian package bart"):
        Bart()


def test_flops_of_a_matrix_product():
    a, b = torch.ones(3, 4), torch.ones(4, 5)
    assert count_flops(lambda: a @ b) == 2 * 3 * 4 * 5


def test_a_worker_that_is_stopped_leaves_nothing_behind(case, tmp_path, monkeypatch):
    """In the middle of a tool that takes long."""
    tool = tmp_path / "bart"
    tool.write_text("#!/bin/sh\nexec sleep 60\n")
    tool.chmod(0o755)
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(folder))
    worker = workers.Worker("coil maps", "BART", 1)
    worker.prepare(case)
    while not list(folder.glob("*/kspace.cfl")):
        assert worker._process.poll() is None
        time.sleep(0.01)
    worker.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert list(folder.iterdir()) == []
