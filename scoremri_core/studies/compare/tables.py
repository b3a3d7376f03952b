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
    mean : over slices.
    half_width : of the 95 % interval of the mean, Student's; NaN of one slice.
    difference : mean of this less the posterior mean's on the same slices, None for itself.
    p : of a two-sided paired t-test of that; NaN of fewer than two slices.
    count : slices.
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
    shift, label : of the trials.
    true_acceleration : mean.
    cells : by method.
    """

    shift: str
    label: str
    true_acceleration: float
    cells: dict[str, Cell]


def table(rows: Sequence[TrialScore], score: str, methods: Sequence[str], ours: str) -> list[Line]:
    """One line for each shift and label.

    Parameters
    ----------
    score : name of the score, such as "psnr"
    methods : in the order of the columns
    ours : the method that the others are tested against
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
                method: _cell(own, None if method == ours else values.get(ours, {}))
                for method, own in values.items()
                if own
            }
            ratio = float(np.mean([row.true_acceleration for row in group]))
            lines.append(Line(shift, label, ratio, cells))
    return lines


def _cell(own: dict[tuple[str, int], float], ours: dict[tuple[str, int], float] | None) -> Cell:
    values = list(own.values())
    apart = None if ours is None else [v - ours[key] for key, v in own.items() if key in ours]
    return Cell(
        float(np.mean(values)),
        interval(values),
        float(np.mean(apart)) if apart else None,
        paired_p(apart) if apart else math.nan,
        len(values),
    )
