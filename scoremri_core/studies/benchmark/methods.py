"""Timed runs of the benchmark: each function warms up and returns a callable that runs once."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from scoremri_core.studies.benchmark.bart import Bart, NotInstalledError
from scoremri_core.studies.benchmark.case import Case, Image, Measurement
from scoremri_core.studies.methods import LAMBDAS

Run = Callable[[], Measurement]

DIFFPIR_STEPS = 100  # as DeepInverse has it


def posterior(case: Case, frames: int = 1) -> Run:
    """Time the default sampler from k-space to samples, on `frames` copies of the frame."""
    from scoremri_core import load_prior, reconstruct
    from scoremri_core.recon.request import find_device
    from scoremri_core.studies.benchmark.stopwatch import Stopwatch

    device = find_device(case.device)
    watch = Stopwatch(device)
    prior = watch.timed(load_prior(case.prior).to(device))
    kspace = np.repeat(case.kspace[None], frames, axis=0)

    def run() -> Measurement:
        watch.clear()
        start = watch.now()
        result = reconstruct(
            kspace,
            prior=prior,
            samples=case.samples,
            steps=case.steps,
            seed=case.seed,
            device=case.device,
        )
        seconds = watch.now() - start
        _refuse_fallback(result)
        return _split(
            seconds / frames,
            _seconds_of_maps(case.kspace, str(device)),
            sum(watch.seconds) / frames,
            evaluations=sum(watch.images) // (frames * case.samples),
            output=result.mean[0],
            score=_score(case, result.mean[0], result.samples[0], result.info.effective_samples),
            gpu_memory=_gpu_memory(device),
        )

    run()
    return run


def posterior_batch(case: Case) -> Run:
    """Time the default sampler on a batch of frames; seconds are per frame."""
    return posterior(case, case.frames)


def langevin(case: Case) -> Run:
    """Time annealed Langevin dynamics with the same network: a few noise levels, extrapolated.

    All steps take the same time: a denoiser evaluation, a gradient of the likelihood, random
    numbers. The setup before the first step counts once.
    """
    from scoremri_core import load_prior, reconstruct
    from scoremri_core.recon.request import find_device
    from scoremri_core.samplers.langevin import LangevinOptions
    from scoremri_core.studies.benchmark.stopwatch import Stopwatch

    device = find_device(case.device)
    watch = Stopwatch(device)
    prior = watch.timed(load_prior(case.prior).to(device))
    full = LangevinOptions()
    evaluations = len(full.schedule())

    def run(levels: int = case.langevin_levels) -> Measurement:
        watch.clear()
        start = watch.now()
        result = reconstruct(
            case.kspace,
            prior=prior,
            sampler="langevin",
            samples=case.samples,
            steps=levels,
            seed=case.seed,
            device=case.device,
        )
        end = watch.now()
        _refuse_fallback(result, unfit=True)
        # a step ends where the next one starts
        images = sum(watch.images[:-1])
        per_image = (watch.starts[-1] - watch.starts[0]) / images
        return _split(
            scaled(watch.starts[0] - start, per_image * case.samples, evaluations),
            _seconds_of_maps(case.kspace, str(device)),
            # of the same steps, so that the network's part does not exceed the total
            scaled(0, sum(watch.seconds[:-1]) / images * case.samples, evaluations),
            evaluations=evaluations,
            gpu_memory=_gpu_memory(device),
            note=f"extrapolated from {sum(watch.images) // case.samples} evaluations",
            details={"measured_seconds": end - start},
        )

    run(1)
    return run


def diffpir(case: Case) -> Run:
    """Time DiffPIR (Zhu et al. 2023) of DeepInverse with the same network.

    Parameters
    ----------
    case : Case

    Returns
    -------
    Run

    Raises
    ------
    NotInstalledError
        DeepInverse cannot be imported.
    """
    from types import SimpleNamespace

    from scoremri_core import load_prior
    from scoremri_core.recon.request import find_device
    from scoremri_core.studies.benchmark.stopwatch import Stopwatch
    from scoremri_core.studies.methods.peers import samplers
    from scoremri_core.studies.methods.problem import Problem

    device = find_device(case.device)
    watch = Stopwatch(device)
    # `denoise` only: in the precision of the default sampler, without gradients
    prior = SimpleNamespace(denoise=watch.timed(load_prior(case.prior).to(device)).denoise)
    steps = case.steps or DIFFPIR_STEPS
    try:
        method = samplers(prior, case.samples, steps, device)["DiffPIR"]
    except KeyError as error:
        raise NotInstalledError("not installed (deepinv)") from error

    def run() -> Measurement:
        watch.clear()
        start = watch.now()
        maps = _maps(case.kspace)
        estimated = watch.now()
        answer = method(Problem(case.kspace, maps, case.seed))
        return _split(
            watch.now() - start,
            estimated - start,
            sum(watch.seconds),
            evaluations=answer.evaluations,
            output=answer.image,
            score=_score(case, answer.image, answer.samples, answer.effective_samples),
            gpu_memory=_gpu_memory(device),
        )

    run()
    return run


def scaled(setup: float, per_evaluation: float, evaluations: int) -> float:
    """Return the seconds of a run from those of its setup and of an evaluation."""
    return setup + per_evaluation * evaluations


def l1_wavelet(case: Case) -> Run:
    """Time L1-wavelet of SigPy with the best of three weights."""
    from scoremri_core.mri import classical

    _import("sigpy.mri")
    return _best_weight(
        case, lambda weight: _on_maps(case, partial(classical.l1_wavelet, lam=weight), weight)
    )


def cg_sense(case: Case) -> Run:
    """Time SENSE by conjugate gradients."""
    from scoremri_core.mri import classical

    _on_maps(case, classical.cg_sense)
    return lambda: _on_maps(case, classical.cg_sense)


def bart_pics(case: Case) -> Run:
    """Time L1-wavelet of BART on BART's coil maps, with the best of three weights."""

    def run(weight: float) -> Measurement:
        with Bart() as bart:
            bart.put("kspace", case.kspace)
            maps = bart.run("ecalib", "-m1", "-c0", f"-r{case.calibration}", "kspace", "maps")
            pics = bart.run("pics", "-l1", "-S", f"-r{weight:g}", "kspace", "maps", "image")
            return _split(
                maps + pics,
                maps,
                output=bart.get("image"),
                memory=bart.memory,
                note=_best_of(weight),
            )

    return _best_weight(case, run)


def espirit(case: Case) -> Run:
    """Time scoremri's coil maps, from the square of calibration samples."""
    from scoremri_core.mri.coils.maps import estimate_coil_maps

    kspace = case.calibration_square

    def run() -> Measurement:
        start = time.perf_counter()
        maps = estimate_coil_maps(kspace, device=case.device)[0]
        return Measurement(time.perf_counter() - start, output=maps)

    run()
    return run


def sigpy_espirit(case: Case) -> Run:
    """Time SigPy's coil maps, from the same samples."""
    app = _import("sigpy.mri.app")
    kspace = case.calibration_square

    def run() -> Measurement:
        start = time.perf_counter()
        calibration = app.EspiritCalib(
            kspace, calib_width=case.calibration, crop=0, show_pbar=False
        )
        maps = calibration.run()
        return Measurement(time.perf_counter() - start, output=maps)

    run()
    return run


def bart_ecalib(case: Case) -> Run:
    """Time BART's coil maps, from the same samples."""

    def run() -> Measurement:
        with Bart() as bart:
            bart.put("kspace", case.calibration_square)
            seconds = bart.run("ecalib", "-m1", "-c0", f"-r{case.calibration}", "kspace", "maps")
            return Measurement(seconds, output=bart.get("maps"), memory=bart.memory)

    run()
    return run


def convolutions(case: Case) -> Run:
    """Measure the convolution rate at the network's widths, and count the network's FLOPs."""
    from scoremri_core import load_prior
    from scoremri_core.recon.request import find_device
    from scoremri_core.studies.benchmark.floor import (
        PRECISIONS,
        evaluation_flops,
        heaviest_convolutions,
    )

    device = find_device(case.device)
    prior, shape = load_prior(case.prior), (case.kspace.shape[1], case.kspace.shape[2])
    flops = evaluation_flops(prior, shape)
    heaviest = heaviest_convolutions(prior, shape)

    def run() -> Measurement:
        start = time.perf_counter()
        rates = [
            {name: c.rate(case.samples, dtype, device) for name, dtype in PRECISIONS.items()}
            for c in heaviest
        ]
        details = {
            "flops": flops,
            "rates": {name: max(rate[name] for rate in rates) for name in PRECISIONS},
            "convolutions": [
                {"channels": [c.channels_in, c.channels_out], "kernel": c.kernel, "matrix": c.shape}
                | rate
                for c, rate in zip(heaviest, rates, strict=True)
            ],
        }
        return Measurement(time.perf_counter() - start, details=details)

    return run


FRAME: dict[str, Callable[[Case], Run]] = {
    "scoremri": posterior,
    "scoremri, batch": posterior_batch,
    "Langevin (scaled)": langevin,
    "DiffPIR (DeepInverse)": diffpir,
    "CG-SENSE": cg_sense,
    "L1-wavelet (SigPy)": l1_wavelet,
    "L1-wavelet (BART)": bart_pics,
    "convolutions": convolutions,
}
COIL_MAPS: dict[str, Callable[[Case], Run]] = {
    "scoremri": espirit,
    "SigPy": sigpy_espirit,
    "BART": bart_ecalib,
}
GROUPS = {"frame": FRAME, "coil maps": COIL_MAPS}


def _maps(kspace: Image, device: str = "cpu") -> Image:
    """Estimate coil maps (coil, y, x) as `reconstruct` does."""
    from scoremri_core.mri.coils.maps import estimate_coil_maps
    from scoremri_core.mri.noise.covariance import covariance_from_edges

    covariance = covariance_from_edges(kspace)
    maps: Image = estimate_coil_maps(kspace, noise_covariance=covariance, device=device)[0]
    return maps


def _seconds_of_maps(kspace: Image, device: str) -> float:
    """Time the coil maps of `reconstruct` by estimating them again."""
    start = time.perf_counter()
    _maps(kspace, device)
    return time.perf_counter() - start


def _refuse_fallback(result: Any, unfit: bool = False) -> None:
    """Raise if nothing was sampled; with `unfit`, accept samples that do not fit the data."""
    reason = result.info.reason
    if reason is not None and not (unfit and np.isfinite(result.info.misfit)):
        raise RuntimeError(f"no samples: {reason}")


def _split(
    seconds: float, coil_maps: float, denoiser: float | None = None, **rest: Any
) -> Measurement:
    parts = {"coil_maps": coil_maps, "rest": seconds - coil_maps - (denoiser or 0)}
    if denoiser is not None:
        parts["denoiser"] = denoiser
    return Measurement(seconds, parts, **rest)


def _on_maps(
    case: Case, reconstruct: Callable[[Image, Image], Image], weight: float | None = None
) -> Measurement:
    """Time coil maps and a classical reconstruction from k-space and maps."""
    start = time.perf_counter()
    maps = _maps(case.kspace)
    estimated = time.perf_counter()
    image = reconstruct(case.kspace, maps)
    seconds, note = time.perf_counter() - start, "" if weight is None else _best_of(weight)
    return _split(seconds, estimated - start, output=image, note=note)


def _best_of(weight: float) -> str:
    return f"lambda {weight:g}, the best of {len(LAMBDAS)}"


def _best_weight(case: Case, run: Callable[[float], Measurement]) -> Run:
    """Warm up with each weight, and select the one with the least error of the magnitude."""

    def error(weight: float) -> float:
        image = run(weight).output
        assert image is not None
        return float(np.sum((np.abs(image) - np.abs(case.truth)) ** 2))

    best = min(LAMBDAS, key=error)
    return lambda: run(best)


def _score(case: Case, *answer: Any) -> Any:
    # imported here: its imports must not count in the memory of other rows
    from scoremri_core.score.score import Answer, Reference, score

    return score(Answer(*answer), Reference(case.truth))


def _import(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise NotInstalledError(f"not installed ({name.partition('.')[0]})") from error


def _gpu_memory(device: Any) -> float | None:
    if device.type != "cuda":
        return None
    import torch

    return torch.cuda.max_memory_allocated(device) / 2**20
