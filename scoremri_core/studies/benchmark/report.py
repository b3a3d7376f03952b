"""The rows of the benchmark, from what was measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.studies.benchmark.case import Case, Image, Measurement
from scoremri_core.studies.benchmark.methods import COIL_MAPS, FRAME
from scoremri_core.studies.benchmark.workers import measure

DEFAULT = "scoremri"
Runs = dict[str, list[Measurement] | str]


@dataclass(frozen=True)
class Timing:
    """One method; medians over the repetitions, None for what it does not have.

    Attributes
    ----------
    method : its name.
    seconds : from k-space to the image, coil maps included; or those of the coil maps.
    runs : seconds of each repetition.
    seconds_per_sample : of a posterior sample.
    coil_maps, denoiser, rest : how the seconds split.
    evaluations : denoiser evaluations per sample.
    ratio : seconds over the default's, the median of the repetitions' own.
    psnr : of the image against the truth, dB.
    crps : of the samples against the truth, over its maximum.
    similarity_median, similarity_1st_percentile : of coil maps with ours, |<s1, s2>| in the head.
    memory, gpu_memory : peak of the row's process in MB.
    note : a setting, what was scaled, or why nothing was measured.
    """

    method: str
    seconds: float | None = None
    runs: Sequence[float] = ()
    seconds_per_sample: float | None = None
    coil_maps: float | None = None
    denoiser: float | None = None
    rest: float | None = None
    evaluations: int | None = None
    ratio: float | None = None
    psnr: float | None = None
    crps: float | None = None
    similarity_median: float | None = None
    similarity_1st_percentile: float | None = None
    memory: float | None = None
    gpu_memory: float | None = None
    note: str = ""


def frame_names(case: Case) -> list[str]:
    """The rows that reconstruct a frame, and the machine's convolutions."""
    return [name for name in FRAME if name != "scoremri, batch" or case.frames > 1]


def work(case: Case, extra_maps: int, repetitions: int) -> int:
    """Number of `advance` calls of `benchmark`."""
    return (len(frame_names(case)) + (1 + extra_maps) * len(COIL_MAPS)) * (1 + repetitions)


def benchmark(
    case: Case,
    more_maps: Sequence[Case] = (),
    repetitions: int = 3,
    threads: int | None = None,
    advance: Callable[[str], None] = lambda note: None,
) -> dict[str, Any]:
    """Measure every row.

    Parameters
    ----------
    case : the frame.
    more_maps : further frames, for the coil maps alone.
    repetitions : of each row, after one to warm up; medians count.
    threads : of each process; None leaves it to the libraries.
    advance : called with the name of each row that has run, `work` times.

    Returns
    -------
    What the JSON file holds: machine, scan, rows and the floor.
    """
    machine = describe_machine(threads)
    found = measure("frame", frame_names(case), case, repetitions, threads, advance)
    rates = found.pop("convolutions")
    maps = [
        {
            "scan": each.name,
            "rows": [
                asdict(row)
                for row in coil_map_rows(
                    each,
                    measure("coil maps", list(COIL_MAPS), each, repetitions, threads, advance),
                )
            ],
        }
        for each in (case, *more_maps)
    ]
    rows = frame_rows(case, found)
    machine["load_after"] = _load()
    return {
        "machine": machine,
        "settings": {
            "samples": case.samples,
            "steps": case.steps,
            "prior": case.prior,
            "device": case.device,
            "calibration": case.calibration,
            "frames": case.frames,
            "langevin_levels": case.langevin_levels,
            "repetitions": repetitions,
            "seed": case.seed,
        },
        "scan": {
            "name": case.name,
            "shape": list(case.kspace.shape),
            "mask": case.mask,
            "true_acceleration": case.true_acceleration,
        },
        "frame": [asdict(row) for row in rows],
        "floor": floor(rows[0], rates, case.samples),
        "coil_maps": maps,
    }


def frame_rows(case: Case, found: Runs) -> list[Timing]:
    """Rows of the methods that reconstruct the frame, the default's first."""
    from scoremri_core.score.metrics import psnr

    rows = []
    for method, runs in found.items():
        if isinstance(runs, str):
            rows.append(Timing(method, note=runs))
            continue
        seconds = [run.seconds for run in runs]
        last = runs[-1]
        rows.append(
            Timing(
                f"{method} of {case.frames}" if method.endswith("batch") else method,
                median(seconds),
                seconds,
                None if last.evaluations is None else median(seconds) / case.samples,
                **{
                    part: median(run.parts[part] for run in runs)
                    for part in ("coil_maps", "denoiser", "rest")
                    if part in last.parts
                },
                evaluations=last.evaluations,
                ratio=_ratio(runs, found[DEFAULT]),
                psnr=None if last.output is None else psnr(last.output, case.truth),
                crps=None if last.score is None else last.score.crps,
                memory=last.memory,
                gpu_memory=last.gpu_memory,
                note=last.note,
            )
        )
    return rows


def coil_map_rows(case: Case, found: Runs) -> list[Timing]:
    """Rows of the coil maps, ours first."""
    from scoremri_core.score.metrics import head_mask

    head = head_mask(case.truth)
    own = found[DEFAULT]
    ours = None if isinstance(own, str) else own[-1].output
    rows = []
    for method, runs in found.items():
        if isinstance(runs, str):
            rows.append(Timing(method, note=runs))
            continue
        seconds, maps = [run.seconds for run in runs], runs[-1].output
        typical, worst = None, None
        if ours is not None and maps is not None:
            alike = similarity(ours, maps)[head]
            typical, worst = float(np.median(alike)), float(np.percentile(alike, 1))
        rows.append(
            Timing(
                method,
                median(seconds),
                seconds,
                ratio=_ratio(runs, own),
                similarity_median=typical,
                similarity_1st_percentile=worst,
                memory=runs[-1].memory,
                note=runs[-1].note,
            )
        )
    return rows


def similarity(first: Image, second: Image) -> NDArray[np.float64]:
    """|<s1, s2>| / |s1| |s2| of coil maps (coil, y, x) pixel by pixel; 0 where one vanishes."""
    product = np.abs(np.sum(first.conj() * second, axis=0))
    lengths = np.linalg.norm(first, axis=0) * np.linalg.norm(second, axis=0)
    found: NDArray[np.float64] = np.where(lengths > 0, product / np.maximum(lengths, 1e-30), 0)
    return found


def floor(default: Timing, rates: list[Measurement] | str, samples: int) -> dict[str, Any]:
    """Compare the default with the least time in which its network could be evaluated.

    Parameters
    ----------
    default : the row of the default sampler.
    rates : of the machine's convolutions, or why they were not measured.
    samples : posterior samples.

    Returns
    -------
    flops : of one evaluation for one image.
    rates : FLOPs per second of the fastest convolution, by precision; medians.
    convolutions : the same for each, as last measured.
    seconds : FLOPs of all evaluations of the frame over the higher rate.
    denoiser_fraction, frame_fraction : `seconds` over those of the denoiser, of the frame.
    overhead : share of the frame's time that is not the denoiser's.
    coil_maps : share of the frame's time that is the coil maps'.
    note : why something is missing.
    """
    if isinstance(rates, str):
        return {"note": rates}
    details = [run.details for run in rates]
    result: dict[str, Any] = {
        "flops": details[-1]["flops"],
        "rates": {
            name: median(found["rates"][name] for found in details) for name in details[-1]["rates"]
        },
        "convolutions": details[-1]["convolutions"],
        "note": "",
    }
    if default.seconds is None or default.denoiser is None or default.evaluations is None:
        return result | {"note": "the default was not measured"}
    least = result["flops"] * default.evaluations * samples / max(result["rates"].values())
    return result | {
        "seconds": least,
        "denoiser_fraction": least / default.denoiser,
        "frame_fraction": least / default.seconds,
        "overhead": 1 - default.denoiser / default.seconds,
        "coil_maps": (default.coil_maps or 0) / default.seconds,
    }


def describe_machine(threads: int | None) -> dict[str, Any]:
    """Processor, GPU, cores, versions, and how busy the machine is before anything runs."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load_before": _load(),
    }


def _load() -> float | None:
    """Processes that ran or wanted to, averaged over a minute; None where it is not told."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _ratio(runs: list[Measurement], default: list[Measurement] | str) -> float | None:
    """Median over the rounds of the seconds over the default's in the same round."""
    if isinstance(default, str):
        return None
    return median(run.seconds / own.seconds for run, own in zip(runs, default, strict=True))
