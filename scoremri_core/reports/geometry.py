"""How an image lies in the patient, and how it is turned to be looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = tuple[float, float, float]

# Patient coordinates of ISMRMRD and DICOM: x grows to the left, y to the back, z to the head.
LETTERS = (("L", "R"), ("P", "A"), ("H", "F"))
PLANES = ("sagittal", "coronal", "axial")  # by the axis that is nearest to their normal
# What a viewer puts to the right of such a plane and below it: right is left as one looks at
# a patient's feet or face, sagittal planes are seen from the left.
SHOWN = (((0, 1, 0), (0, 0, -1)), ((1, 0, 0), (0, 0, -1)), ((1, 0, 0), (0, 1, 0)))
SECOND = 0.25  # share of a direction along another axis from which that is named too
LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200)  # mm, of scale bars
UNKNOWN: Vector = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of an image (y, x) are.

    Attributes
    ----------
    field_of_view : (x, y, z), mm; z is the thickness of a slice.
    read_dir, phase_dir : unit vectors along which x and y grow, in patient coordinates; zeros
        where they are not known.
    position : of the centre, mm, in patient coordinates; None where it is not known.
    """

    field_of_view: Vector = (1.0, 1.0, 1.0)
    read_dir: Vector = UNKNOWN
    phase_dir: Vector = UNKNOWN
    position: Vector | None = None

    @property
    def known(self) -> bool:
        """Whether the directions are two unit vectors at right angles."""
        axes = np.array([self.read_dir, self.phase_dir], float)
        return bool(np.allclose(axes @ axes.T, np.eye(2), atol=0.01))

    @property
    def plane(self) -> str:
        """Such as "axial, tilted by 12 degrees"."""
        if not self.known:
            return "not known: the scan does not say how it lies in the patient"
        normal = np.abs(self._normal)
        name = PLANES[int(normal.argmax())]
        tilt = float(np.degrees(np.arccos(min(normal.max(), 1.0))))
        return name if tilt < 1 else f"{name}, tilted by {tilt:.0f} degrees"

    @property
    def _normal(self) -> NDArray[Any]:
        return np.cross(self.read_dir, self.phase_dir)

    def view(self) -> View:
        """As radiologists look at this plane; as it is where its directions are not known."""
        width, height, _ = self.field_of_view
        if not self.known:
            return View(False, False, False, None, None, (width, height))
        read, phase = np.array(self.read_dir), np.array(self.phase_dir)
        right, down = (np.array(v) for v in SHOWN[int(np.abs(self._normal).argmax())])
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
    """An image as it is shown.

    Attributes
    ----------
    transposed, left_right, up_down : what is done to (y, x), one after the other.
    right, down : directions of the shown image in patient coordinates; None where not known.
    size : (width, height), mm.
    """

    transposed: bool
    left_right: bool
    up_down: bool
    right: Vector | None
    down: Vector | None
    size: tuple[float, float]

    def of(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """The image (y, x), turned."""
        shown = pixels.T if self.transposed else pixels
        shown = shown[:, ::-1] if self.left_right else shown
        return shown[::-1] if self.up_down else shown

    @property
    def edges(self) -> dict[str, str]:
        """Letters at the left, right, top and bottom edge; none where they are not known."""
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
        """(right, down) of the direction in which phase encoding counts up."""
        if self.transposed:
            return (-1 if self.left_right else 1, 0)
        return (0, -1 if self.up_down else 1)

    @property
    def bar(self) -> int:
        """Length of a scale bar, mm: at most a third of the width."""
        return max((n for n in LENGTHS if n <= self.size[0] / 3), default=LENGTHS[0])


def letters(direction: Vector) -> str:
    """Where a direction leads, as DICOM's PatientOrientation says it: "L", or "LA" if oblique."""
    order = sorted(range(3), key=lambda axis: -abs(direction[axis]))
    named = [axis for axis in order if abs(direction[axis]) > SECOND]
    return "".join(LETTERS[axis][int(direction[axis] < 0)] for axis in named)


def _vector(values: NDArray[Any]) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _opposite(direction: Vector) -> Vector:
    return _vector(-np.array(direction))
