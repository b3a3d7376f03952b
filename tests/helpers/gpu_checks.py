"""What `tests/gpu.sh` measures itself: coil maps, precisions of the network, targets."""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from scoremri_core import load_prior
from scoremri_core.mri.coils.maps import estimate_coil_maps
from scoremri_core.priors.network import NetworkPrior
from scoremri_core.studies.benchmark.case import simulated
from scoremri_core.studies.benchmark.report import similarity

FRAME_SECONDS = 0.1
MAP_SECONDS = 0.01
REPETITIONS = 10
# largest departure of a precision from float32, as a share of the denoised image
DEPARTURE = {torch.float32: 0.01, torch.float16: 0.02, torch.bfloat16: 0.05}


def check(name: str, value: float, most: float, unit: str = "") -> bool:
    """Print a figure beside its target; whether it is met."""
    met = value <= most
    print(f"{name}: {value:.3g}{unit}, target {most:g}{unit}: {'met' if met else 'MISSED'}")
    return met


def seconds(call, device: str) -> float:
    """Median of some runs after one, the GPU waited for."""

    def once() -> float:
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    once()
    return float(np.median([once() for _ in range(REPETITIONS)]))


def coil_maps(device: str, dry: bool) -> bool:
    """Those on CuPy are those on NumPy, and quick."""
    side = 64 if dry else 256
    case = simulated((4 if dry else 8, side, side), 4, 24, 0)
    if device == "cuda":
        import cupy  # noqa: F401  without it the coil maps would be computed on the CPU
    there = estimate_coil_maps(case.kspace, device=device)[0]
    here = estimate_coil_maps(case.kspace)[0]
    apart = 1 - similarity(here, there)[np.abs(case.truth) > 0]
    alike = check("coil maps, 1 - similarity, worst pixel", float(apart.max()), 1e-3)
    spent = seconds(lambda: estimate_coil_maps(case.kspace, device=device), device)
    return check(f"coil maps of {side} x {side}", spent, MAP_SECONDS, " s") and alike


def precisions(device: str, dry: bool) -> bool:
    """The network in each precision, against float32 on the CPU."""
    prior = load_prior("default")
    side, count = (32, 1) if dry else (256, 8)
    x = torch.randn(count, side, side, dtype=torch.complex64, generator=torch.Generator())
    sigma = torch.full((count,), 0.3)
    exact = NetworkPrior(prior.model, prior.card, torch.float32).denoise(x, sigma)
    met = True
    for precision, most in DEPARTURE.items():
        if device == "cpu" and precision == torch.float16:
            continue  # not a precision of every CPU's convolutions
        there = NetworkPrior(prior.model, prior.card, precision).to(torch.device(device))
        given = x.to(device), sigma.to(device)
        error = there.denoise(*given).cpu() - exact
        spent = seconds(lambda call=there.denoise, given=given: call(*given), device)
        print(f"{precision}: {spent / count:.3g} s an image")
        met &= check(f"{precision}, departure", float(error.norm() / exact.norm()), most)
    return met


def targets(tables: list[Path]) -> bool:
    """Seconds a frame, from the tables of `scoremri benchmark`."""
    best, met = float("inf"), True
    for table in sorted(tables, key=lambda path: int(path.stem.rpartition("-")[2])):
        for row in json.loads(table.read_text())["frame"]:
            if not row["method"].startswith("scoremri"):
                continue
            if row["seconds"] is None:
                print(f"{table.name}, {row['method']}: {row['note']}")
                met = False
                continue
            best = min(best, row["seconds"])
            memory = "" if row["gpu_memory"] is None else f", {row['gpu_memory']:.0f} MB of GPU"
            print(f"{table.name}, {row['method']}: {row['seconds']:.3g} s a frame{memory}")
    return check("seconds a frame, the best of these", best, FRAME_SECONDS, " s") and met


def main() -> int:
    """Run the checks; 1 where a target was missed, but on a dry run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, with tiny sizes")
    parser.add_argument("--tables", nargs="+", type=Path, help="tables of `scoremri benchmark`")
    arguments = parser.parse_args()
    if arguments.tables:
        met = targets(arguments.tables)
    else:
        device = "cpu" if arguments.dry_run else "cuda"
        checks = [check(device, arguments.dry_run) for check in (coil_maps, precisions)]
        met = all(checks)
    return 0 if met or arguments.dry_run else 1


if __name__ == "__main__":
    sys.exit(main())
