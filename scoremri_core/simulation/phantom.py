"""Procedural head phantom: axial slices with folded cortex.

Tissue fractions are drawn on a fine grid and averaged over each pixel, which gives partial volume.
Signals follow from proton density and relaxation times by the spin-echo and inversion-recovery
equations. The anatomy is a function of position in mm and of the seed, independent of the matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from scoremri_core.errors import InputError

Floats = npt.NDArray[np.float32]

FINEST_MM = 0.42  # spacing of the fine grid
HEAD_MM = (196.0, 158.0)  # length (A-P, y) and width (x) of the largest slice

# Proton density, T1 and T2 in ms, similar to values at 3 T (Wansapura et al., JMRI 9:531, 1999;
# Stanisz et al., MRM 54:507, 2005); fat is partly suppressed.
TISSUES: dict[str, tuple[float, float, float]] = {
    "fluid": (1.00, 4000, 1500),
    "grey": (0.82, 1550, 99),
    "white": (0.71, 850, 74),
    "nuclei": (0.80, 1250, 84),
    "lesion": (0.86, 1700, 170),
    "fat": (0.45, 380, 90),
    "muscle": (0.75, 1300, 45),
    "marrow": (0.35, 450, 70),
    "bone": (0.06, 400, 20),
    "vessel": (0.12, 1900, 200),
}

# TR, TE and TI in ms; None: spin echo.
CONTRASTS: dict[str, tuple[float, float, float | None]] = {
    "t1": (560, 12, None),
    "t2": (4800, 92, None),
    "flair": (9000, 105, 2500),
}


def signal(tissue: str, contrast: str) -> float:
    """Compute the signal of a tissue: spin echo, or inversion recovery with a TI.

    Parameters
    ----------
    tissue : str
        One of TISSUES.
    contrast : str
        One of CONTRASTS.

    Returns
    -------
    float
    """
    density, t1, t2 = TISSUES[tissue]
    tr, te, ti = CONTRASTS[contrast]
    recovered = 1 - np.exp(-tr / t1)
    if ti is not None:
        recovered = 1 - 2 * np.exp(-ti / t1) + np.exp(-tr / t1)
    return float(abs(density * recovered * np.exp(-te / t2)))


class Field:
    """Smooth random field: a sum of plane waves of similar wavelength, mean 0, variance 1.

    Parameters
    ----------
    rng : numpy.random.Generator
    wavelength : float
        In mm.
    waves : int, optional
        Number of plane waves.
    """

    def __init__(self, rng: np.random.Generator, wavelength: float, waves: int = 160) -> None:
        direction = rng.normal(size=(3, waves))
        direction /= np.linalg.norm(direction, axis=0)
        self._k = direction * (2 * np.pi / wavelength * rng.uniform(0.7, 1.3, waves))
        self._phase = rng.uniform(0, 2 * np.pi, waves)

    def on_grid(self, y: Floats, x: Floats, z: float) -> Floats:
        """Evaluate on a grid of coordinates.

        Parameters
        ----------
        y : float array, (ny,)
            In mm, as the others.
        x : float array, (nx,)
        z : float

        Returns
        -------
        float array, (ny, nx)
        """
        ky, kx, kz = self._k
        along_y = np.exp(1j * (np.outer(y, ky) + kz * z + self._phase)).astype(np.complex64)
        along_x = np.exp(1j * np.outer(kx, x)).astype(np.complex64)
        return np.asarray(np.sqrt(2 / len(ky)) * (along_y @ along_x).real, np.float32)


# Wavelengths of the random fields in mm, by what they vary.
FIELDS = {
    "outline": 90, "scalp": 45, "bone": 35, "diploe": 9, "liquor": 40, "folds": 15, "wrinkles": 9,
    "reach": 40, "opening": 25, "bend": 40, "cortex": 20, "nuclei": 25, "grain": 3.5, "mottle": 9,
    "drift": 70,
}  # fmt: skip


def head_slice(
    shape: Sequence[int],
    fov: Sequence[float],
    z: float = 0.0,
    contrast: str = "t2",
    seed: int = 0,
) -> npt.NDArray[np.complex64]:
    """Draw one axial slice, nose up, with smooth phase.

    Parameters
    ----------
    shape : tuple of int, (y, x)
        Matrix; position 0 is at index n//2.
    fov : tuple of float, (y, x)
        Field of view in mm.
    z : float, optional
        Height of the slice in mm; 0 is at the ventricles, the top of the head near 85.
    contrast : str, optional
        One of CONTRASTS.
    seed : int, optional
        Of the anatomy.

    Returns
    -------
    complex64 array, (y, x)
        Signal of grey matter is 1.

    Raises
    ------
    InputError
        Unknown contrast.
    """
    if contrast not in CONTRASTS:
        raise InputError(f"contrast '{contrast}': expected one of {', '.join(CONTRASTS)}")
    fine = [max(2, int(np.ceil(f / n / FINEST_MM))) for f, n in zip(fov, shape, strict=True)]
    y, x = (
        (np.arange(n * m, dtype=np.float32) - (m - 1) / 2 - n // 2 * m) * np.float32(f / n / m)
        for n, m, f in zip(shape, fine, fov, strict=True)
    )
    rng = np.random.default_rng(seed)
    fields = {n: Field(rng, w).on_grid(y, x, z) for n, w in FIELDS.items()}
    drawn = np.zeros(fields["grain"].shape, np.float32)
    for tissue, depth, softness in _layers(y, x, z, fields, rng):
        cover = np.clip(0.5 + depth / (2 * softness), 0, 1)
        drawn += cover * (signal(tissue, contrast) - drawn)
    drawn *= 1 + 0.03 * fields["grain"] + 0.025 * fields["mottle"] + 0.04 * fields["drift"]
    image = drawn.reshape(shape[0], fine[0], shape[1], fine[1]).mean((1, 3))
    image /= signal("grey", contrast)
    centres = [axis.reshape(-1, m).mean(1) for axis, m in zip((y, x), fine, strict=True)]
    phase = 0.8 * Field(rng, 170).on_grid(centres[0], centres[1], z) + 0.006 * centres[0][:, None]
    return np.asarray(image * np.exp(1j * phase), np.complex64)


def _layers(
    y: Floats, x: Floats, z: float, fields: dict[str, Floats], rng: np.random.Generator
) -> Iterator[tuple[str, Floats, float]]:
    """Yield (tissue, depth inside it in mm, half-width of its border in mm) in painting order."""
    pitch = float(y[1] - y[0]), float(x[1] - x[0])
    size = float(np.sqrt(max(0.02, 1 - (0.62 * z / 60) ** 2)))
    length, width = (size * mm / 2 for mm in HEAD_MM)
    narrow = np.clip(0.955 + 0.095 * y / length, 0.7, 1.2)[:, None]
    radius = np.hypot((y / length)[:, None], x[None] / (width * narrow))
    skin = (1 - radius) * (length + width) / 2 + 0.8 * fields["outline"]
    fat = skin - 1.5
    bone = fat - 3.4 - fields["scalp"]
    inside = bone - 6 - 0.9 * fields["bone"]
    yield "muscle", skin, 0.5
    yield "fat", fat, 0.5
    yield "bone", bone, 0.5
    yield "marrow", np.minimum(bone - 1.6, -inside - 1.6) + 0.5 * fields["diploe"], 0.6
    yield "fluid", inside, 0.5

    side = np.abs(x[None] + 0.8 * fields["bend"])
    outer = np.clip((np.abs(y) / length - 0.3) / 0.25, 0, 1)[:, None]
    fissure = (side < 0.4 + 0.8 * outer) & (np.abs(y)[:, None] > 0.3 * length)
    brain = (inside > 2.1 + 0.7 * fields["liquor"]) & ~fissure
    tissue = brain & ~_sulci(y, x, length, width, brain, pitch, fields)
    pial = _depth(tissue, pitch)
    thickness = 2.7 + 0.35 * fields["cortex"]
    yield "grey", np.where(tissue, pial - 0.2, -1), 0.5
    yield "white", np.where(tissue, pial - thickness, -1), 0.7

    deep = np.where(pial > 0, 0.0, -9.0)
    shown = 1 - np.exp(-((z / 35) ** 2))
    for sign in (1, -1):
        for middle, half, turn in NUCLEI:
            body = _ellipse(y, sign * x, [size * c for c in middle], half, turn)
            yield "nuclei", body + 0.5 * fields["nuclei"] + deep - 6 * shown, 0.9
    horns = np.maximum(*(_horn(y, sign * x, size) for sign in (1, -1)))
    third = np.minimum(1.3 - np.abs(x)[None], np.minimum(y + 4, 16 - y)[:, None] / 2)
    yield "fluid", np.maximum(horns, third) + 0.35 * fields["bend"] - 3 * shown, 0.6
    for _ in range(7):
        at = size * rng.uniform(-34, 42), size * rng.choice([-1, 1]) * rng.uniform(17, 33)
        spot = _ellipse(y, x, at, rng.uniform(1.0, 3.2, 2), rng.uniform(0, 3))
        spot -= 2 * (rng.normal(0, 20) - z) ** 2 / 900
        yield "lesion", np.minimum(spot, pial - thickness) + 0.2 * fields["cortex"], 0.6
    for angle in rng.uniform(0, 2 * np.pi, 26):
        edge = (length - 13.5) * np.cos(angle), (width - 13) * np.sin(angle)
        yield "vessel", _ellipse(y, x, edge, rng.uniform(0.5, 1.1, 2), 0), 0.4
    yield "vessel", _ellipse(y, x, (length - 13.5, 0.0), (3.2, 2.2), 0), 0.5


def _sulci(
    y: Floats,
    x: Floats,
    length: float,
    width: float,
    brain: npt.NDArray[np.bool_],
    pitch: tuple[float, float],
    fields: dict[str, Floats],
) -> npt.NDArray[np.bool_]:
    """Return the sulci: thin bands along the zeros of a field near the surface of the brain."""
    depth = _depth(brain, pitch)
    folds = fields["folds"] + 0.35 * fields["wrinkles"]
    slope = np.maximum(np.hypot(*np.gradient(folds, *pitch)), 0.04)
    reach = 17 + 5 * fields["reach"]
    opening = 0.35 + (0.45 + 0.25 * fields["opening"]) * np.clip(1.2 - depth / reach, 0, 1)
    sulci = (np.abs(folds) / slope < np.maximum(opening, 0.75 * max(pitch))) & (depth < reach)
    lateral = y[:, None] + 0.1 * length - 0.25 * (0.8 * width - np.abs(x)[None])
    sylvian = (np.abs(lateral - 2.5 * fields["opening"]) < 1.2 + 0.6 * fields["opening"]) & (
        np.abs(x)[None] > 0.5 * width
    )
    return np.asarray(sulci | sylvian)


# Caudate head, putamen, thalamus: centre (y, x), half-axes in mm, rotation in radians.
NUCLEI = (
    ((-20.0, 12.5), (9.0, 4.2), 0.25),
    ((-6.0, 24.5), (14.5, 5.2), 0.22),
    ((12.0, 10.0), (10.5, 6.8), -0.35),
)


def _ellipse(
    y: Floats, x: Floats, center: Sequence[float], half: npt.ArrayLike, turn: float
) -> Floats:
    """Return the approximate depth inside an ellipse in mm."""
    a, b = np.asarray(half, float)
    dy, dx = (y - center[0])[:, None], (x - center[1])[None]
    u = (dy * np.cos(turn) + dx * np.sin(turn)) / a
    v = (dx * np.cos(turn) - dy * np.sin(turn)) / b
    return np.asarray((1 - np.hypot(u, v)) * min(a, b), np.float32)


def _horn(y: Floats, x: Floats, size: float) -> Floats:
    """Return the depth inside the lateral ventricle at x > 0, a curved, tapering band, in mm."""
    along = np.clip((y / size + 31) / 70, 0, 1)
    course = size * (5 + 14 * np.clip(along - 0.15, 0, 1) ** 1.4 + 5 * (1 - along) ** 5)
    half = size * (2.6 + 3.2 * np.exp(-(((along - 0.12) / 0.15) ** 2)))
    half += size * 2.4 * np.exp(-(((along - 0.8) / 0.15) ** 2))
    half *= np.sqrt(np.clip(4 * along, 0, 1) * np.clip(5 * (1 - along), 0, 1))
    half[(y / size < -31) | (y / size > 39)] = -9
    return np.asarray(half[:, None] - np.abs(x[None] - course[:, None]) - 0.3, np.float32)


def _depth(mask: npt.NDArray[np.bool_], pitch: tuple[float, float]) -> Floats:
    """Return the distance to the outside of a mask in mm."""
    return np.asarray(distance_transform_edt(mask, sampling=pitch), np.float32)
