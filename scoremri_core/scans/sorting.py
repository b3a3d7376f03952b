"""Sorting of readouts with equal counters into images.

Some converters leave counters at zero: that of the echo, or encode steps if there is a trajectory.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from scoremri_core.scans.encoding import Encoding, Readout, along_readout, as_measured
from scoremri_core.scans.flags import REVERSE, STEPS

logger = logging.getLogger(__name__)

MIN_LINES = 4  # of an image
OFF_GRID = 0.1  # encode steps
STRONG = 95  # percentile of energy; stronger lines are compared
MAX_DIFFERENCE = 0.01  # of their energy, between lines of one image
SIGNIFICANT = 4  # standard errors


class ImageLines(NamedTuple):
    """Readouts of one image, its encoding as measured, and reasons why it cannot be sampled."""

    encoding: Encoding
    readouts: Sequence[Readout]
    problems: list[str]


def sort_readouts(readouts: Sequence[Readout], encoding: Encoding) -> list[ImageLines]:
    """Sort readouts with equal counters into images, usually one.

    Constant encode steps are replaced by those of the trajectory, if there is one. Readouts at the
    same position are averages if they agree up to noise, else separate images, such as echoes with
    a constant contrast counter. The headers of the readouts are updated.

    Parameters
    ----------
    readouts : sequence of Readout
        Of one encoding space, with equal slice, contrast, phase, repetition and set.
    encoding : Encoding
        Of the header.

    Returns
    -------
    list of ImageLines
    """
    encoding, problems = _place_by_trajectory(readouts, encoding)
    measured = as_measured(encoding, readouts)
    places = Counter(map(_place, readouts))
    if len({partition for _, partition, _ in places}) == 1 < measured.matrix[2]:
        problems.append(f"all readouts are in one of {measured.matrix[2]} partitions")
    elif len(places) < MIN_LINES and len(places) < len(readouts):
        count = f"{len(places)} position{'s' * (len(places) > 1)}"
        problems.append(f"{len(readouts)} readouts at {count} of k-space")
    elif encoding.averages == 1 and not _are_averages(readouts, places, encoding):
        groups = _separate(readouts, len(places))
        return [ImageLines(as_measured(encoding, group), group, problems) for group in groups]
    return [ImageLines(measured, readouts, problems)]


def _place(readout: Readout) -> tuple[int, int, int]:
    idx = readout.header.idx
    return idx.kspace_encode_step_1, idx.kspace_encode_step_2, idx.average


def _are_averages(
    readouts: Sequence[Readout], places: Counter[tuple[int, int, int]], encoding: Encoding
) -> bool:
    """Whether readouts at the same position, if most are, differ by noise only.

    The differences of the strongest lines are compared with those of the weakest, the noise.
    """
    if 2 * sum(count > 1 for count in places.values()) < len(places):
        return True
    shared: dict[Hashable, list[npt.NDArray[Any]]] = defaultdict(list)
    for readout in readouts:
        start, data = along_readout(readout.header, readout.data, encoding.matrix[0])
        if np.isfinite(data).all():
            shared[_place(readout), start, data.shape].append(data)
    several = [np.array(group) for group in shared.values() if len(group) > 1]
    if not several:
        return True
    energy = np.array([np.sum(abs(group) ** 2) / len(group) for group in several])
    variance = np.array([group.var(axis=0, ddof=1).sum() for group in several])
    strong, weak = energy >= np.percentile(energy, STRONG), energy <= np.median(energy)
    excess = variance[strong].mean() - variance[weak].mean()
    standard_error = variance[weak].std() / np.sqrt(strong.sum())
    return bool(excess <= MAX_DIFFERENCE * energy[strong].mean() + SIGNIFICANT * standard_error)


def _separate(readouts: Sequence[Readout], places: int) -> list[list[Readout]]:
    """Separate readouts by position, segment or a user counter, else by order of acquisition.

    The slice (by position) or contrast counters are set to the number of the image.
    """
    heads = [readout.header for readout in readouts]
    positions = [tuple(head.position) for head in heads]
    distinct = list(dict.fromkeys(positions))
    labels = {
        "position": [distinct.index(position) for position in positions],
        "idx.segment": [head.idx.segment for head in heads],
    }
    for i in range(len(heads[0].idx.user)):
        labels[f"idx.user[{i}]"] = [head.idx.user[i] for head in heads]
    times: Counter[Hashable] = Counter()
    order = []
    for readout in readouts:
        order.append(times[_place(readout)])
        times[_place(readout)] += 1
    criterion, groups = "order of acquisition", _grouped(readouts, order)
    for name, values in labels.items():
        others = _grouped(readouts, values)
        if len(others) == len(groups) and all(_is_single(group) for group in others):
            criterion, groups = name, others
            break
    count = Counter(times.values()).most_common(1)[0][0]
    logger.warning(
        "%d readouts at %d positions differ: separating them into %d images by %s",
        len(readouts), places, count, criterion,
    )  # fmt: skip
    for number, group in enumerate(groups[:count]):
        for readout in group:
            setattr(readout.header.idx, "slice" if criterion == "position" else "contrast", number)
    return groups[:count]


def _is_single(readouts: Sequence[Readout]) -> bool:
    """Whether all readouts have different positions."""
    return len(set(map(_place, readouts))) == len(readouts)


def _grouped(readouts: Sequence[Readout], labels: Sequence[int]) -> list[list[Readout]]:
    groups: dict[int, list[Readout]] = defaultdict(list)
    for readout, label in zip(readouts, labels, strict=True):
        groups[label].append(readout)
    return [groups[label] for label in sorted(groups)]


def _place_by_trajectory(
    readouts: Sequence[Readout], encoding: Encoding
) -> tuple[Encoding, list[str]]:
    """Replace constant encode steps by those of the trajectory.

    Returns
    -------
    Encoding
        With the centre of these steps.
    list of str
        Problems of the trajectory.
    """
    shapes = {None if readout.ends is None else readout.ends.shape for readout in readouts}
    if len(shapes) > 1 or None in shapes:
        return encoding, []
    ends = np.array([readout.ends for readout in readouts], np.float64)
    travel = ends[:, 1] - ends[:, 0]
    read = int(np.abs(travel).mean(axis=0).argmax())
    pitch = np.abs(travel[:, read]).mean() / max(readouts[0].data.shape[1] - 1, 1)
    if not (np.isfinite(ends).all() and pitch > 0):
        return encoding, []
    across = np.delete(ends[:, 0], read, axis=1).T
    problems: list[str] = []
    placed = False
    for axis, (name, positions) in enumerate(zip(STEPS, across, strict=False), start=1):
        steps = {getattr(readout.header.idx, name) for readout in readouts}
        if len(steps) > 1 or np.ptp(positions) < OFF_GRID * pitch:
            continue
        grid = _on_grid(positions, pitch, axis, encoding)
        if grid is None or np.abs(np.delete(travel, read, axis=1)).max() > OFF_GRID * pitch:
            problems.append(
                f"{name} is {steps.pop()} in all readouts and the trajectory is not Cartesian"
            )
            continue
        new_steps, centre, size = grid
        encoding = _with_steps(encoding, axis, centre, size)
        placed = True
        for readout, step in zip(readouts, new_steps.tolist(), strict=True):
            setattr(readout.header.idx, name, step)
    if placed:
        logger.info("Encode steps are constant; taking them from the trajectory")
        for readout, forward in zip(readouts, travel[:, read] > 0, strict=True):
            readout.header.flags |= 0 if forward else REVERSE
    return encoding, problems


def _on_grid(
    positions: npt.NDArray[np.float64], pitch: float, axis: int, encoding: Encoding
) -> tuple[npt.NDArray[np.int_], int, int] | None:
    """Find the grid of positions of the trajectory along an axis.

    Parameters
    ----------
    positions : float array, (readout,)
        In any unit.
    pitch : float
        Distance of the samples of a readout, in that unit.
    axis : {1, 2}
        Of the matrix.
    encoding : Encoding

    Returns
    -------
    (steps, centre, size) or None
        Encode steps from 0, that of DC, and the matrix size; None: not on a grid of the encoding.
    """
    nx, size = encoding.matrix[0], encoding.matrix[axis]
    if size == 1:  # limits of the header may be unset
        size = encoding.recon_matrix[axis]
    if size == 1:
        return None
    by_matrix = pitch * nx / size  # cycles per pixel, or a multiple
    by_length = pitch * encoding.fov[0] / (encoding.fov[axis] or np.inf)  # cycles per mm, or per m
    spacings = [by_matrix, by_length, pitch]
    if not 0.9 < pitch * nx < 1.1:
        spacings = [pitch, by_length, by_matrix] if 0.9 < pitch < 1.1 else [by_length, *spacings]
    for spacing in filter(None, spacings):
        steps = (positions - positions.min()) / spacing
        whole = np.rint(steps)
        if np.abs(steps - whole).max() < OFF_GRID and 0 < whole.max() < size:
            centre = round(-positions.min() / spacing)
            return whole.astype(int), centre if 0 <= centre <= whole.max() else size // 2, size
    return None


def _with_steps(encoding: Encoding, axis: int, centre: int, size: int) -> Encoding:
    """Replace the encode steps along axis 1 or 2 of the matrix."""
    matrix, centres, steps = list(encoding.matrix), list(encoding.center), list(encoding.steps)
    matrix[axis], centres[axis - 1], steps[axis - 1] = size, centre, range(size)
    changed: dict[str, Any] = {"matrix": tuple(matrix), "center": tuple(centres)}
    return replace(encoding, **changed, steps=(steps[0], steps[1]))
