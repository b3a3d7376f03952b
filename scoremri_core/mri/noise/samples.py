"""Samples of a scan that hold noise and next to nothing of the object.

Sharp edges reach the corners of k-space, and many coils need many samples: no place is free of the
object in every scan. Several are compared, and the quietest is taken, because an object only adds
power:

- lines far from DC, transformed along the readout, beside the object;
- the same after a Hann window, which keeps edges of the object from ringing;
- the samples farthest from DC, if readouts have gaps;
- pixels beside the object in a windowed image of the calibration region.

Power is measured in units of each coil's noise: a loud coil does not hide the object in the others.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from scoremri_core.errors import CalibrationError
from scoremri_core.mri.fourier import fft

PER_COIL = 8  # samples wanted: eigenvalues of whitened noise are from 0.5 to 2 then
FEWEST = 256  # samples wanted, however few the coils
QUIETER = 0.95  # power of a place over that of the one before, for it to be taken instead
SURE = 3.0  # standard errors by which a difference is certain
CHANCE = 2.0  # standard errors that may be chance
FEWEST_LINES = 12
AIR = 0.2  # of the columns
ROLL_OFF = 0.05  # of the columns, and of them as many are taken at least
JUMP = 1.15  # in power, from a column to the next louder one, where the object begins
BLOCK = 64  # samples of k-space
FAR = 0.02  # of the samples, 4 blocks at least
FILTERED = 3.0  # sd at the rim of Nyquist's circle over that in the corners beyond it
WIDEST = 64  # calibration samples along an axis
NARROWEST = 8
CORNERS = 0.02  # of the pixels, 2 at least
FLOOR = 0.2  # quantile of a coil's power that is taken as its noise
TINY = 1e-30  # of the largest power

Samples = NDArray[np.complex64]
Real = NDArray[np.floating]


def noise_samples(
    kspace: Samples, measured: NDArray[np.bool_], variance: NDArray[np.float64]
) -> Samples:
    """Independent samples of the noise.

    Parameters
    ----------
    kspace : (coil, y, x) complex64
        Centred, with a largest magnitude of about 1.
    measured : (y, x) bool
        Which samples were measured, at least one.
    variance : (y, x) float
        Noise variance of each sample relative to that wanted, zero where not measured.

    Returns
    -------
    (coil, n) complex64
    """
    best, *others = _candidates(kspace, measured, variance)
    for other in others:
        if _is_quieter(other, best):
            best = other
    return best


def _candidates(
    ksp: Samples, measured: NDArray[np.bool_], variance: NDArray[np.float64]
) -> Iterator[Samples]:
    """Samples from each place, first from the one with the fewest artefacts in real scans."""
    lines = _whole_lines(measured)
    if lines is None:
        yield _far_samples(ksp, measured, variance)
    else:
        yield _beside_object(ksp, lines, variance, np.ones(ksp.shape[-1]))
        common = np.all(measured[lines], axis=0)
        if common.sum() >= NARROWEST:
            # after the window every other column is independent
            yield _beside_object(ksp, lines, variance, _window(common), step=2)
    from scoremri_core.mri.coils.maps import calibration_extent  # imports `noise` itself

    try:
        extent = calibration_extent(measured)
    except CalibrationError:
        return
    rows, columns = (_central(s, n) for s, n in zip(extent, measured.shape, strict=True))
    if min(rows.stop - rows.start, columns.stop - columns.start) >= NARROWEST:
        yield _corners(ksp[:, rows, columns], variance[rows, columns])


def _is_quieter(one: Samples, other: Samples) -> bool:
    """Whether the coils have less power in one place than in the other, by more than chance."""
    levels = [np.log(np.maximum(_power(x).mean(axis=1), TINY)).mean() for x in (one, other)]
    error = np.sqrt((1 / one.shape[1] + 1 / other.shape[1]) / len(one))
    return bool(levels[0] - levels[1] < np.log(QUIETER) - SURE * error)


def _whole_lines(measured: NDArray[np.bool_]) -> NDArray[np.intp] | None:
    """Lines sampled without gaps, those farthest from DC first; None where readouts have gaps."""
    ny, nx = measured.shape
    count = measured.sum(axis=1)
    whole = np.flatnonzero(count >= max(0.9 * count.max(), nx / 2))
    first = measured[whole].argmax(axis=1)
    last = nx - measured[whole, ::-1].argmax(axis=1)
    gap_free = last - first == count[whole]
    if nx < NARROWEST or gap_free.sum() < 8 or gap_free.mean() < 0.9:
        return None
    whole = whole[gap_free]
    return whole[np.argsort(-np.abs(whole - ny // 2), kind="stable")]


def _beside_object(
    ksp: Samples,
    lines: NDArray[np.intp],
    variance: NDArray[np.float64],
    window: NDArray[np.float64],
    step: int = 1,
) -> Samples:
    """The columns beside the object of lines far from DC, transformed along the readout.

    The columns are chosen by the lines near DC, so that none is chosen because it is quiet by
    chance. Lines nearer DC are added if the samples are too few for the coils.
    """
    weight = window / np.sqrt(np.mean(window**2 * variance[lines], axis=1, keepdims=True))
    # uncentred: neither the phase nor the order of columns matters
    hybrid = fft(ksp[:, lines] * weight.astype(np.float32), (-1,), inverse=True)[..., ::step]
    power = _power(hybrid)
    far = min(max(FEWEST_LINES, len(lines) // 4), len(lines) - 4)
    air = _air(power[:, far:], PER_COIL * len(ksp) // len(lines))
    rows = _quiet_rows(power[:, :, air], far)
    return hybrid[:, rows][:, :, air].reshape(len(ksp), -1)


def _air(power: Real, wanted: int) -> NDArray[np.intp]:
    """The quietest columns of power (coil, line, column), until the object begins.

    Without the very quietest ones, where receiver filters may attenuate the noise.
    """
    coils, lines, columns = power.shape
    level = _over_floor(power.mean(axis=1))
    order = np.argsort(level, kind="stable")
    least = max(int(ROLL_OFF * columns), 2)
    most = max(int(AIR * columns), min(wanted, columns // 2), 2 * least)
    jump = JUMP + CHANCE / np.sqrt(coils * lines)
    louder = level[order[2 * least : most]] > jump * level[order[2 * least - 1 : most - 1]]
    count = 2 * least + (int(louder.argmax()) if louder.any() else len(louder))
    return order[least:count]


def _far_samples(
    ksp: Samples, measured: NDArray[np.bool_], variance: NDArray[np.float64]
) -> Samples:
    """The measured samples farthest from DC, in blocks.

    The corners beyond Nyquist's circle are left out if they are far quieter than its rim: a
    filtered or interpolated image has no noise there.
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
    """The first `far` rows of power (coil, row, sample), and others as quiet if more are needed."""
    coils, _, size = power.shape
    wanted = -(-max(PER_COIL * coils, FEWEST) // size)
    floor = np.maximum(power[:, :far].mean(axis=(1, 2), keepdims=True), TINY)
    level = (power[:, far:] / floor).mean(axis=(0, 2))
    quiet = far + np.flatnonzero(level < 1 + CHANCE / np.sqrt(coils * size))
    return np.concatenate([np.arange(far), quiet[: max(0, wanted - far)]])


def _corners(block: Samples, variance: NDArray[np.float64]) -> Samples:
    """Pixels beside the object in the windowed image of a calibration region.

    Every other pixel along each axis, which are independent after the window.
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
    """Power (coil, ...) in units of each coil's noise, averaged over the coils."""
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
    """At most `WIDEST` samples of an extent, about the centre n // 2."""
    start = max(extent.start, min(n // 2 - WIDEST // 2, extent.stop - WIDEST))
    return slice(start, min(start + WIDEST, extent.stop))
