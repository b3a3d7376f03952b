"""How sure a mean over slices is, and whether two methods differ."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

LEVEL = 0.95


def interval(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of a mean (Student's); NaN of a single value."""
    count = len(values)
    if count < 2:
        return math.nan
    reach = stats.t.ppf((1 + LEVEL) / 2, count - 1)
    return float(reach * np.std(values, ddof=1) / np.sqrt(count))


def paired_p(differences: Sequence[float]) -> float:
    """Two-sided p of a paired t-test; NaN where there is nothing to test."""
    if len(differences) < 2 or np.ptp(differences) == 0:
        return math.nan
    return float(stats.ttest_1samp(differences, 0.0).pvalue)
