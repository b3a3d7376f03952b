"""Samples of a scan with noise and little signal.

No region of k-space or image is free of signal in every scan, and many coils require many samples.
Since signal only adds power, the quietest of several regions is used:

- lines far from DC, transformed along the readout, outside the object;
- the same after a Hann window, which suppresses Gibbs ringing;
- the samples farthest from DC, if readouts have gaps;
- pixels outside the object in a windowed image of the calibration region.

Power is measured relative to the noise of each coil.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from scoremri_core.errors import CalibrationError
from scoremri_core.mri.fourier import fft

PER_COIL = 8  # samples required, for eigenvalues of whitened noise between 0.5 and 2
MIN_SAMPLES = 256  # samples required
QUIETER = 0.95  # power ratio below which another region is used instead
SURE = 3.0  # standard errors of a significant difference
CHANCE = 2.0  # standard errors allowed for chance
MIN_LINES = 12
AIR = 0.2  # maximum fraction of columns taken as air
ROLL_OFF = 0.05  # fraction of columns in which receiver filters may attenuate the noise
JUMP = 1.15  # power ratio of successive columns at which the object begins
BLOCK = 64  # samples per block of k-space
FAR = 0.02  # fraction of samples far from DC, at least 4 blocks
FILTERED = 3.0  # sd inside Nyquist's circle over that beyond it, for filtered corners
MAX_CALIBRATION = 64  # samples per axis
MIN_CALIBRATION = 8  # samples per axis
CORNERS = 0.02  # initial fraction of pixels taken as air, at least 2
FLOOR = 0.2  # quantile of a coil's power taken as its noise
TINY = 1e-30  # relative to the largest power

Samples = NDArray[np.complex64]
Real = NDArray[np.floating]


def noise_samples(
    kspace: Samples, measured: NDArray[np.bool_], variance: NDArray[np.float64]
) -> Samples:
    """Extract independent noise samples from k-space.

    Parameters
    ----------
    kspace : complex64 array, (coil, y, x)
        Centred, with a largest magnitude of about 1.
    measured : bool array, (y, x)
        Measured samples, at least one.
    variance : float64 array, (y, x)
        Relative noise variance of each sample, zero where not measured.

    Returns
    -------
    complex64 array, (coil, n)
        Scaled to relative variance 1.
    """
    best, *others = _candidates(kspace, measured, variance)
    for other in others:
        if _is_quieter(other, best):
            best = other
    return best


def _candidates(
    ksp: Samples, measured: NDArray[np.bool_], variance: NDArray[np.float64]
) -> Iterator[Samples]:
    """Yield the samples of each region, the one with the fewest artefacts in real scans first."""
    lines = _whole_lines(measured)
    if lines is None:
        yield _far_samples(ksp, measured, variance)
    else:
        yield _outside_object(ksp, lines, variance, np.ones(ksp.shape[-1]))
        common = np.all(measured[lines], axis=0)
        if common.sum() >= MIN_CALIBRATION:
            # the window correlates adjacent columns
            yield _outside_object(ksp, lines, variance, _window(common), step=2)
    from scoremri_core.mri.coils.maps import calibration_extent  # circular import

    try:
        extent = calibration_extent(measured)
    except CalibrationError:
        return
    rows, columns = (_central(s, n) for s, n in zip(extent, measured.shape, strict=True))
    if min(rows.stop - rows.start, columns.stop - columns.start) >= MIN_CALIBRATION:
        yield _corners(ksp[:, rows, columns], variance[rows, columns])


def _is_quieter(one: Samples, other: Samples) -> bool:
    """Whether the mean power of one region is significantly lower than that of another."""
    levels = [np.log(np.maximum(_power(x).mean(axis=1), TINY)).mean() for x in (one, other)]
    error = np.sqrt((1 / one.shape[1] + 1 / other.shape[1]) / len(one))
    return bool(levels[0] - levels[1] < np.log(QUIETER) - SURE * error)


def _whole_lines(measured: NDArray[np.bool_]) -> NDArray[np.intp] | None:
    """Find complete lines, in order of distance from DC; None if readouts have gaps."""
    ny, nx = measured.shape
    count = measured.sum(axis=1)
    whole = np.flatnonzero(count >= max(0.9 * count.max(), nx / 2))
    first = measured[whole].argmax(axis=1)
    last = nx - measured[whole, ::-1].argmax(axis=1)
    gap_free = last - first == count[whole]
    if nx < MIN_CALIBRATION or gap_free.sum() < 8 or gap_free.mean() < 0.9:
        return None
    whole = whole[gap_free]
    return whole[np.argsort(-np.abs(whole - ny // 2), kind="stable")]


def _outside_object(
    ksp: Samples,
    lines: NDArray[np.intp],
    variance: NDArray[np.float64],
    window: NDArray[np.float64],
    step: int = 1,
) -> Samples:
    """Columns outside the object in lines far from DC, transformed along the readout.

    The columns are selected on the lines near DC, to avoid selection bias. Lines closer to DC are
    added if there are too few samples for the coils.
    """
    weight = window / np.sqrt(np.mean(window**2 * variance[lines], axis=1, keepdims=True))
    # without centring, since phase and order of columns do not matter
    hybrid = fft(ksp[:, lines] * weight.astype(np.float32), (-1,), inverse=True)[..., ::step]
    power = _power(hybrid)
    far = min(max(MIN_LINES, len(lines) // 4), len(lines) - 4)
    air = _air(power[:, far:], PER_COIL * len(ksp) // len(lines))
    rows = _quiet_rows(power[:, :, air], far)
    return hybrid[:, rows][:, :, air].reshape(len(ksp), -1)


def _air(power: Real, wanted: int) -> NDArray[np.intp]:
    """Select the quietest columns of power (coil, line, column), up to the object.

    The very quietest are left out: receiver filters may attenuate their noise.
    """
    coils, lines, columns = power.shape
    level = _over_floor(power.mean(axis=1))
    order = np.argsort(level, kind="stable")
    skipped = max(int(ROLL_OFF * columns), 2)
    most = max(int(AIR * columns), min(wanted, columns // 2), 2 * skipped)
    jump = JUMP + CHANCE / np.sqrt(coils * lines)
    louder = level[order[2 * skipped : most]] > jump * level[order[2 * skipped - 1 : most - 1]]
    count = 2 * skipped + (int(louder.argmax()) if louder.any() else len(louder))
    return order[skipped:count]


def _far_samples(
    ksp: Samples, measured: NDArray[np.bool_], variance: NDArray[np.float64]
) -> Samples:
    """Measured samples farthest from DC, in blocks.

    The corners beyond Nyquist's circle are excluded if they are far quieter than its rim, as in
    filtered or interpolated images.
    """
    y, x = ((np.arange(n) - n // 2) / (n / 2) for n in measured.shape)
    radius = np.hypot(y[:, None], x)[measured]
    samples: Samples = (ksp[:, measured] / np.sqrt(variance[measured])).astype(np.complex64)
    size = min(BLOCK, radius.size)
    far = min(max(4, int(FAR * radius.size / size)), radius.size // size)
    orders = [np.argsort(-r, kind="stable") for r in (radius, np.where(radius <= 1, radius, 0))]
    beyond, rim = (_power(samples[:, order[: far * size]]).mean() for order in orders)
    order = orders[1] if rim > FILTERED**2 * beyond else orders[0]
    blocks = samples[:, order[: radius.size // size * size]].reshape(len(ksp), -1, size)
    rows = _quiet_rows(_power(blocks), far)
    return blocks[:, rows].reshape(len(ksp), -1)


def _quiet_rows(power: Real, far: int) -> NDArray[np.intp]:
    """Select the first `far` rows of power (coil, row, sample) and equally quiet ones."""
    coils, _, size = power.shape
    wanted = -(-max(PER_COIL * coils, MIN_SAMPLES) // size)
    floor = np.maximum(power[:, :far].mean(axis=(1, 2), keepdims=True), TINY)
    level = (power[:, far:] / floor).mean(axis=(0, 2))
    quiet = far + np.flatnonzero(level < 1 + CHANCE / np.sqrt(coils * size))
    return np.concatenate([np.arange(far), quiet[: max(0, wanted - far)]])


def _corners(block: Samples, variance: NDArray[np.float64]) -> Samples:
    """Pixels outside the object in the windowed image of a calibration region.

    Uses every other pixel along each axis, since the window correlates adjacent ones.
    """
    window = np.outer(*(_window(np.ones(n, bool)) for n in variance.shape))
    window /= np.sqrt(np.mean(window**2 * variance))
    image = fft(block * window.astype(np.float32), (-2, -1), inverse=True)
    level = uniform_filter(_over_floor(_power(image)), 3, mode="wrap")[::2, ::2].ravel()
    order = np.argsort(level, kind="stable")
    # half of the 9 pixels are independent
    limit = 1.25 + SURE / np.sqrt(4.5 * len(block))
    count, more = 0, max(int(CORNERS * level.size), 2)
    while more > count:
        count = more
        more = int(np.sum(level < limit * level[order[:count]].mean()))
    return image[:, ::2, ::2].reshape(len(block), -1)[:, order[:count]]


def _over_floor(power: Real) -> Real:
    """Mean over coils of power (coil, ...) relative to the noise of the coil."""
    floor = np.quantile(power.reshape(len(power), -1), FLOOR, axis=1)
    level: Real = np.mean(power / np.maximum(floor, TINY).reshape(-1, *[1] * (power.ndim - 1)), 0)
    return level


def _power(samples: Samples) -> Real:
    return samples.real**2 + samples.imag**2


def _window(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Hann window over the measured part of a readout (x,), zero elsewhere."""
    window = np.zeros(len(inside))
    n = int(inside.sum())
    window[inside] = np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2
    return window


def _central(extent: slice, n: int) -> slice:
    """Limit an extent to `MAX_CALIBRATION` samples around the centre n // 2."""
    start = max(extent.start, min(n // 2 - MAX_CALIBRATION // 2, extent.stop - MAX_CALIBRATION))
    return slice(start, min(start + MAX_CALIBRATION, extent.stop))
