"""Files of images, read as stacks of slices."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from scoremri_core.errors import InputError
from scoremri_core.scans.formats.recognise import is_dicom
from scoremri_core.training.manifest import VOLUMES, Source, is_photograph

PHOTOGRAPH_SIDE = 400  # pixels

Stack = NDArray[Any]  # (slice, y, x): float16 magnitudes or complex64 images


def read_stacks(source: Source) -> list[Stack]:
    """Read the slices that are not empty, the 99th percentile of each scaled to 1.

    - NIfTI: a 3D volume, magnitudes or complex.
    - ISMRMRD or raw data of another format, fully sampled 2D slices: the MVUE of whitened coils,
      with estimated coil maps.
    - HDF5: the dataset `image`, (slice, y, x) or (y, x), complex or magnitudes.
    - DICOM: magnitudes, one or several frames; phase images are left out.
    - Photographs, see `_photograph`.

    Parameters
    ----------
    source : Source

    Returns
    -------
    list of array, (slice, y, x)
        One float16 or complex64 stack per slice axis.

    Raises
    ------
    InputError
        A file that cannot be read, or of another kind.
    """
    if source.path.name.lower().endswith(VOLUMES):
        volumes = _nifti(source)
    elif is_photograph(source.path):
        volumes = _photograph(source.path)
    elif is_dicom(source.path):
        volumes = _dicom(source.path)
    elif h5py.is_hdf5(source.path):
        volumes = [_hdf5(source)]
    else:
        volumes = [_mvue(source.path, source.dataset or "dataset")]
    return [stack for volume in volumes if len(stack := _scaled(volume))]


def _nifti(source: Source) -> list[NDArray[Any]]:
    try:
        import nibabel
        from nibabel.filebasedimages import ImageFileError
    except ImportError as error:
        raise InputError(f"{source.path}: NIfTI needs NiBabel, of the extra `train`") from error
    try:
        image: Any = nibabel.load(source.path)
        volume = np.asanyarray(image.dataobj)
        voxel = np.array(image.header.get_zooms()[:3])
    except (ImageFileError, OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(f"{source.path}: not readable as NIfTI") from error
    if volume.ndim == 4 and volume.shape[3] == 1:
        volume = volume[..., 0]
    if volume.ndim != 3 or volume.dtype.kind not in "iufc":
        raise InputError(
            f"{source.path}: shape {volume.shape}, {volume.dtype}: expected a 3D volume of numbers"
        )
    axis = source.slice_axis
    if not axis:
        cubes = voxel.max() <= 1.5 * voxel.min()
        axis = "any" if cubes else str(np.argmax(voxel))
    if axis != "any":
        return [np.moveaxis(volume, int(axis), 0)]
    # neighbouring slices are nearly equal
    return [np.moveaxis(volume, a, 0)[::3] for a in range(3)]


def _dicom(path: Path) -> list[NDArray[Any]]:
    from scoremri_core.images.dicom import read_dicom

    dataset = read_dicom(path)
    if not {"P", "PHASE MAP", "I", "R"}.isdisjoint(dataset.get("ImageType", [])):
        return []
    try:
        frames = np.asarray(dataset.pixel_array, np.float32)
    except (AttributeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise InputError(f"{path}: the pixels of this DICOM file are not readable") from error
    if frames.ndim not in (2, 3) or dataset.get("SamplesPerPixel", 1) != 1:
        raise InputError(f"{path}: pixels of shape {frames.shape}: expected grey images")
    return [frames.reshape(-1, *frames.shape[-2:])]


def _photograph(path: Path) -> list[NDArray[Any]]:
    """Read the colours of a photograph as slices, whole and in parts.

    Green and blue are masked by an outline, like a body surrounded by air.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise InputError(f"{path}: photographs need Pillow, of the extra `train`") from error
    try:
        with Image.open(path) as opened:
            photograph = opened.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as a photograph") from error
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    parts: list[NDArray[Any]] = []
    for pieces in (1, 2, 3):
        side = pieces * PHOTOGRAPH_SIDE
        if min(photograph.size) < side and parts:
            break
        factor = side / min(photograph.size)
        smaller = photograph
        if factor < 1:
            smaller = photograph.resize([round(n * factor) for n in photograph.size])
        array = np.asarray(smaller, np.float32)
        for rows in np.array_split(array, pieces):
            parts += np.array_split(rows, pieces, axis=1)
    stacks = []
    for part in parts:
        colours = np.moveaxis(part, -1, 0).copy()
        for colour in colours[1:]:
            colour *= _outline(colour.shape, rng)
        stacks.append(colours)
    return stacks


def _outline(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a mask that is one inside a random closed curve, zero outside."""
    y, x = (np.linspace(-1, 1, n) for n in shape)
    angle = np.arctan2(y[:, None], x[None, :])
    radius = rng.uniform(0.7, 0.95) * np.ones(shape)
    for order in range(1, 7):
        radius += rng.normal(0, 0.1 / order) * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    inside = (radius - np.hypot(y[:, None], x[None, :])) * min(shape) / 2
    return np.clip(inside, 0, 1).astype(np.float32)


def _hdf5(source: Source) -> NDArray[Any]:
    from scoremri_core.scans.files import open_hdf5

    with open_hdf5(source.path) as file:
        name = source.dataset or ("image" if "image" in file else "dataset")
        found = file.get(name)
        is_fastmri = found is None and isinstance(file.get("kspace"), h5py.Dataset)
        if isinstance(found, h5py.Dataset):
            if found.dtype.kind not in "iufc" or found.ndim not in (2, 3):
                raise InputError(
                    f"{source.path}: {name!r} has shape {found.shape}, {found.dtype}: expected "
                    "complex numbers or magnitudes, (slice, y, x)"
                )
            return np.asarray(found).reshape(-1, *found.shape[-2:])
        if not isinstance(found, h5py.Group) and not is_fastmri:
            raise InputError(
                f"{source.path}: no {name!r}: expected a dataset 'image' of (slice, y, x), or an "
                "ISMRMRD scan"
            )
    return _mvue(source.path, name)


def _mvue(path: Path, group: str) -> NDArray[np.complex64]:
    """Reconstruct the MVUE (slice, y, x) of a fully sampled scan."""
    from scoremri_core.mri.classical import mvue
    from scoremri_core.mri.coils.maps import estimate_coil_maps
    from scoremri_core.mri.noise.covariance import covariance_from_edges, whiten, whitening_matrix
    from scoremri_core.mri.sampling import measured
    from scoremri_core.scans.gridding import fully_sampled_kspace

    images = []
    for index, kspace in enumerate(fully_sampled_kspace(path, group)):
        lines = np.flatnonzero(measured(kspace).any(axis=1)) - kspace.shape[1] // 2
        if min(-lines[0], lines[-1]) < 0.9 * max(-lines[0], lines[-1]):
            raise InputError(f"{path}: partial Fourier: expected a fully sampled scan")
        try:
            covariance = covariance_from_edges(kspace)
            maps = estimate_coil_maps(kspace, noise_covariance=covariance)[0]
        except InputError as error:
            raise InputError(f"{path}: slice {index}: {error}") from error
        whitening = whitening_matrix(covariance)
        images.append(mvue(whiten(kspace, whitening), whiten(maps, whitening)))
    return np.stack(images)


def _scaled(volume: NDArray[Any]) -> Stack:
    """Scale the 99th percentile of each slice to 1, without slices that are nearly empty."""
    kept = []
    for image in volume:
        clean = np.nan_to_num(image, posinf=0, neginf=0)
        if not np.iscomplexobj(clean):
            clean = np.maximum(clean.astype(np.float32), 0)
        magnitude = np.abs(clean)
        high = np.percentile(magnitude, 99)
        if high <= 0 or np.mean(magnitude > 0.1 * high) < 0.08:
            continue
        if np.iscomplexobj(clean):
            kept.append((clean / high).astype(np.complex64))
        else:
            kept.append(np.minimum(clean / high, 8).astype(np.float16))
    return np.stack(kept) if kept else np.empty((0, 0, 0), np.float16)
