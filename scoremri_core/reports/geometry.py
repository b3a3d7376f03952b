"""Orientation of an image in the patient and on the screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = tuple[float, float, float]

# Patient coordinates of ISMRMRD and DICOM (LPS): x to the left, y to the back, z to the head.
LETTERS = (("L", "R"), ("P", "A"), ("H", "F"))
PLANES = ("sagittal", "coronal", "axial")  # by the nearest axis of the normal
# Directions (right, down) on the screen in radiological convention: axial planes from the feet,
# coronal planes from the front, sagittal planes from the left.
DISPLAY = (((0, 1, 0), (0, 0, -1)), ((1, 0, 0), (0, 0, -1)), ((1, 0, 0), (0, 1, 0)))
SECOND = 0.25  # component of a direction along another axis from which its letter is added
LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200)  # mm, of scale bars
UNKNOWN: Vector = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Geometry:
    """Geometry of an image (y, x) in patient coordinates.

    Attributes
    ----------
    field_of_view : tuple of float
        (x, y, z) in mm; z is the slice thickness.
    read_dir, phase_dir : tuple of float
        Unit vectors of x and y; zeros: unknown.
    position : tuple of float or None
        Centre in mm; None: unknown.
    """

    field_of_view: Vector = (1.0, 1.0, 1.0)
    read_dir: Vector = UNKNOWN
    phase_dir: Vector = UNKNOWN
    position: Vector | None = None

    @property
    def known(self) -> bool:
        """Whether the directions are orthogonal unit vectors."""
        axes = np.array([self.read_dir, self.phase_dir], float)
        return bool(np.allclose(axes @ axes.T, np.eye(2), atol=0.01))

    @property
    def plane(self) -> str:
        """Name of the plane, such as "axial, tilted by 12 degrees"."""
        if not self.known:
            return "unknown: the scan has no orientation"
        normal = np.abs(self._normal)
        name = PLANES[int(normal.argmax())]
        tilt = float(np.degrees(np.arccos(min(normal.max(), 1.0))))
        return name if tilt < 1 else f"{name}, tilted by {tilt:.0f} degrees"

    @property
    def _normal(self) -> NDArray[Any]:
        return np.cross(self.read_dir, self.phase_dir)

    def view(self) -> View:
        """Return the view in radiological convention.

        Returns
        -------
        View
            Unchanged if the directions are unknown.
        """
        width, height, _ = self.field_of_view
        if not self.known:
            return View(False, False, False, None, None, (width, height))
        read, phase = np.array(self.read_dir), np.array(self.phase_dir)
        right, down = (np.array(v) for v in DISPLAY[int(np.abs(self._normal).argmax())])
        transposed = bool(abs(phase @ right) > abs(read @ right))
        across, along = (phase, read) if transposed else (read, phase)
        left_right, up_down = bool(across @ right < 0), bool(along @ down < 0)
        return View(
            transposed,
            left_right,
            up_down,
            _vector(-across if left_right else across),
            _vector(-along if up_down else along),
            (height, width) if transposed else (width, height),
        )


@dataclass(frozen=True)
class View:
    """View of an image on the screen.

    Attributes
    ----------
    transposed, left_right, up_down : bool
        Transposition and flips of (y, x), in this order.
    right, down : tuple of float or None
        Directions on the screen in patient coordinates; None: unknown.
    size : tuple of float
        (width, height) in mm.
    """

    transposed: bool
    left_right: bool
    up_down: bool
    right: Vector | None
    down: Vector | None
    size: tuple[float, float]

    def of(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Transpose and flip an image.

        Parameters
        ----------
        pixels : array, (y, x)

        Returns
        -------
        array, (row, column)
        """
        shown = pixels.T if self.transposed else pixels
        shown = shown[:, ::-1] if self.left_right else shown
        return shown[::-1] if self.up_down else shown

    @property
    def edges(self) -> dict[str, str]:
        """Letters of the left, right, top and bottom edges; empty if unknown."""
        if self.right is None or self.down is None:
            return {}
        return {
            "left": letters(_opposite(self.right)),
            "right": letters(self.right),
            "top": letters(_opposite(self.down)),
            "bottom": letters(self.down),
        }

    @property
    def phase_encode(self) -> tuple[int, int]:
        """Direction (right, down) of increasing phase-encode steps."""
        if self.transposed:
            return (-1 if self.left_right else 1, 0)
        return (0, -1 if self.up_down else 1)

    @property
    def bar(self) -> int:
        """Length of a scale bar in mm, at most a third of the width."""
        return max((n for n in LENGTHS if n <= self.size[0] / 3), default=LENGTHS[0])


def letters(direction: Vector) -> str:
    """Return the letters of a direction as in PatientOrientation.

    Parameters
    ----------
    direction : tuple of float
        In patient coordinates (left, posterior, superior).

    Returns
    -------
    str
        "L", for example, or "LA" if oblique.
    """
    order = sorted(range(3), key=lambda axis: -abs(direction[axis]))
    named = [axis for axis in order if abs(direction[axis]) > SECOND]
    return "".join(LETTERS[axis][int(direction[axis] < 0)] for axis in named)


def _vector(values: NDArray[Any]) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _opposite(direction: Vector) -> Vector:
    return _vector(-np.array(direction))
