"""Scaling of time and memory of the default sampler with slices, samples, pixels and coils."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from scoremri_core.studies.benchmark.case import Case, simulated
from scoremri_core.studies.benchmark.workers import measure

ROWS = {False: "scoremri", True: "scoremri, batch"}  # by whether there are several slices
SIZES: dict[str, tuple[int, ...]] = {
    "slices": (1, 2, 4, 8),
    "samples": (2, 4, 8, 16),
    "side": (128, 192, 256, 384),
    "coils": (4, 8, 16, 32),
}
QUICK: dict[str, tuple[int, ...]] = {
    "slices": (1, 2),
    "samples": (1, 2),
    "side": (48, 64),
    "coils": (2, 4),
}


def points(sizes: dict[str, tuple[int, ...]]) -> int:
    """Number of cases that `scaling` measures."""
    return sum(map(len, sizes.values()))


def scaling(
    shape: tuple[int, int, int],
    sizes: dict[str, tuple[int, ...]],
    acceleration: float,
    calibration: int,
    seed: int,
    repetitions: int = 3,
    threads: int | None = None,
    advance: Callable[[str], None] = lambda note: None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Measure the default sampler as one size grows and the others stay.

    Parameters
    ----------
    shape : tuple of int, (coil, y, x)
        Of the simulated scan; y is the side where another size grows.
    sizes : dict
        What grows, "slices", "samples", "side" or "coils", and its values.
    acceleration : float
        See `case.simulated`, as for the next two.
    calibration : int
    seed : int
    repetitions : int, optional
        Of each case, after one that does not count; medians count.
    threads : int, optional
        Of each process. Default: that of the libraries.
    advance : callable, optional
        Called with a name as each of the `points` has been measured.
    **settings
        See `case.simulated`.

    Returns
    -------
    list of dict
        For each size its name, the values (pixels for "side"), seconds and MB (of a separate
        process, including interpreter and libraries), the `exponent` of each, and the exponent of
        n log n over these values. A failed case has None and a note.
    """
    found = []
    for name, values in sizes.items():
        rows = []
        for value in values:
            case = _case(name, value, shape, acceleration, calibration, seed, settings)
            rows.append({"value": value} | _measured(case, repetitions, threads))
            advance(f"{name} {value}")
        n = [row["value"] ** 2 if name == "side" else row["value"] for row in rows]
        found.append(
            {
                "size": "pixels" if name == "side" else name,
                "rows": [row | {"n": count} for row, count in zip(rows, n, strict=True)],
                "exponents": {
                    figure: exponent(n, [row[figure] for row in rows])
                    for figure in ("seconds", "memory")
                },
                "n_log_n": exponent(n, [count * np.log2(max(2, count)) for count in n]),
            }
        )
    return found


def exponent(sizes: Sequence[float], values: Sequence[float | None]) -> float | None:
    """Fit the exponent p of c n^p by least squares of logarithms; None for fewer than two values.

    Values that are None are skipped.
    """
    pairs = [(n, value) for n, value in zip(sizes, values, strict=True) if value]
    if len(pairs) < 2:
        return None
    logarithms = np.log(np.array(pairs, np.float64))
    return float(np.polyfit(logarithms[:, 0], logarithms[:, 1], 1)[0])


def draw(path: str | os.PathLike[str], growth: Sequence[dict[str, Any]]) -> None:
    """Plot seconds and MB over each size, both axes logarithmic, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(growth), 6), dpi=110, layout="constrained")
    axes = figure.subplots(2, len(growth), squeeze=False)
    for column, each in zip(axes.T, growth, strict=True):
        for axis, key, label in zip(column, ("seconds", "memory"), ("seconds", "MB"), strict=True):
            known = [(row["n"], row[key]) for row in each["rows"] if row[key] is not None]
            if known:
                n, values = np.array(known, np.float64).T
                axis.loglog(n, values, "o-", label="measured")
                axis.loglog(n, values[0] * n / n[0], ":", color="grey", label="linear")
                axis.set_xticks(n, [f"{count:,.0f}" for count in n], rotation=30)
                axis.minorticks_off()
            power = each["exponents"][key]
            axis.set_title("" if power is None else f"scales as n^{power:.2f}", fontsize=10)
            axis.set_xlabel(each["size"])
            axis.set_ylabel(label)
    axes[0, 0].legend(fontsize=8)
    FigureCanvasAgg(figure).print_png(str(path))


def _case(
    name: str,
    value: int,
    shape: tuple[int, int, int],
    acceleration: float,
    calibration: int,
    seed: int,
    settings: dict[str, Any],
) -> Case:
    coils, ny, nx = shape
    if name == "coils":
        coils = value
    elif name == "side":
        ny = nx = value
    case = simulated((coils, ny, nx), acceleration, calibration, seed, **settings)
    if name == "slices":
        return replace(case, frames=value)
    return replace(case, samples=value) if name == "samples" else case


def _measured(case: Case, repetitions: int, threads: int | None) -> dict[str, Any]:
    row = ROWS[case.frames > 1]
    runs = measure("frame", [row], case, repetitions, threads)[row]
    if isinstance(runs, str):
        return {"seconds": None, "memory": None, "note": runs}
    return {
        # batched runs report seconds per frame
        "seconds": median(run.seconds for run in runs) * case.frames,
        "memory": runs[-1].memory,
        "note": "",
    }
