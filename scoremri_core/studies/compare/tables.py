"""Means, intervals and paired tests of the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scoremri_core.score.intervals import interval, paired_p
from scoremri_core.studies.compare.scores import TrialScore
from scoremri_core.studies.compare.trials import SHIFTS


@dataclass(frozen=True)
class Cell:
    """One method in one line of a table.

    Attributes
    ----------
    mean : float
        Over slices.
    half_width : float
        Of the 95 % interval of the mean (Student's t); NaN for one slice.
    difference : float or None
        Mean difference to the posterior mean on the same slices; None for the posterior mean.
    p : float
        Of a two-sided paired t-test of the difference; NaN for fewer than two slices.
    count : int
        Number of slices.
    """

    mean: float
    half_width: float
    difference: float | None
    p: float
    count: int


@dataclass(frozen=True)
class Line:
    """A line of a table: one shift, all methods.

    Attributes
    ----------
    shift, label : str
        Of the trials.
    true_acceleration : float
        Mean over the trials.
    cells : dict of str to Cell
        By method.
    """

    shift: str
    label: str
    true_acceleration: float
    cells: dict[str, Cell]


def table(rows: Sequence[TrialScore], score: str, methods: Sequence[str], ours: str) -> list[Line]:
    """Return one line for each shift and label.

    Parameters
    ----------
    rows : sequence of TrialScore
    score : str
        Name of the score, such as "psnr".
    methods : sequence of str
        In the order of the columns.
    ours : str
        The method that the others are tested against.

    Returns
    -------
    list of Line
    """
    lines = []
    for shift in SHIFTS:
        for label in dict.fromkeys(row.label for row in rows if row.shift == shift):
            group = [row for row in rows if (row.shift, row.label) == (shift, label)]
            values = {
                method: {
                    (row.scan, row.slice): float(getattr(row, score))
                    for row in group
                    if row.method == method and getattr(row, score) is not None
                }
                for method in methods
            }
            cells = {
                method: _cell(by_slice, None if method == ours else values.get(ours, {}))
                for method, by_slice in values.items()
                if by_slice
            }
            ratio = float(np.mean([row.true_acceleration for row in group]))
            lines.append(Line(shift, label, ratio, cells))
    return lines


def _cell(
    by_slice: dict[tuple[str, int], float], ours: dict[tuple[str, int], float] | None
) -> Cell:
    values = list(by_slice.values())
    differences = [v - ours[key] for key, v in by_slice.items() if key in ours] if ours else []
    return Cell(
        float(np.mean(values)),
        interval(values),
        float(np.mean(differences)) if differences else None,
        paired_p(differences) if differences else math.nan,
        len(values),
    )
