"""Confidence intervals and paired tests over slices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

LEVEL = 0.95


def interval(values: Sequence[float]) -> float:
    """Return half the width of the 95 % confidence interval of a mean.

    Parameters
    ----------
    values : sequence of float

    Returns
    -------
    float
        By Student's t; NaN for fewer than two values.
    """
    count = len(values)
    if count < 2:
        return math.nan
    quantile = stats.t.ppf((1 + LEVEL) / 2, count - 1)
    return float(quantile * np.std(values, ddof=1) / np.sqrt(count))


def paired_p(differences: Sequence[float]) -> float:
    """Return the two-sided p of a paired t-test.

    Parameters
    ----------
    differences : sequence of float

    Returns
    -------
    float
        NaN for fewer than two values or equal ones.
    """
    if len(differences) < 2 or np.ptp(differences) == 0:
        return math.nan
    return float(stats.ttest_1samp(differences, 0.0).pvalue)
