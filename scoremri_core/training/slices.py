"""Training slices, cached on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremri_core.errors import InputError
from scoremri_core.paths import replacing
from scoremri_core.scans.formats.geometry import find_sidecar
from scoremri_core.training.manifest import Source
from scoremri_core.training.volumes import Stack, read_stacks

logger = logging.getLogger(__name__)

FORMAT = 1  # version of the cache; another one invalidates it


@dataclass(frozen=True)
class Slice:
    """One slice, the 99th percentile of its magnitude scaled to 1: float16, or complex64."""

    image: NDArray[Any]
    subject: str
    contrast: str
    weight: float = 1.0  # relative frequency in training


def load_slices(
    sources: Sequence[Source],
    cache: Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Slice]:
    """Read all slices that are not empty.

    Parameters
    ----------
    sources : sequence of Source
    cache : Path, optional
        Folder of prepared slices, one .npz per file. An entry is rebuilt if it is damaged, or if
        the size, the modification time or the options of its file changed.
    progress : callable, optional
        Called after each file with the number of files done.

    Returns
    -------
    list of Slice
        In the order of the sources.

    Raises
    ------
    InputError
        A file that cannot be read; no slice that is not empty.
    """
    slices: list[Slice] = []
    for done, source in enumerate(sources, 1):
        stacks = read_stacks(source) if cache is None else _cached(source, cache)
        of = (source.subject, source.contrast, source.weight)
        slices += [Slice(image, *of) for stack in stacks for image in stack]
        logger.debug("%s: %d slices so far", source.path, len(slices))
        progress(done)
    if not slices:
        raise InputError(f"{sources[0].path}: all slices are empty")
    return slices


def _cached(source: Source, folder: Path) -> list[Stack]:
    path = source.path.resolve()
    status = path.stat()
    parts: list[Any] = [
        FORMAT,
        status.st_size,
        status.st_mtime_ns,
        source.slice_axis,
        source.dataset,
    ]
    if sidecar := find_sidecar(path):  # it names the axes of an array
        parts.append(sidecar.stat().st_mtime_ns)
    key = json.dumps(parts)
    kept = folder / f"{hashlib.sha256(str(path).encode()).hexdigest()[:24]}.npz"
    if kept.is_file():
        try:
            with kept.open("rb") as file, np.load(file) as arrays:
                if str(arrays["key"]) == key:
                    return [arrays[f"stack{i}"] for i in range(len(arrays.files) - 1)]
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            logger.info("%s: damaged; rebuilding", kept)
    stacks = read_stacks(source)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(kept) as partial:
        named: dict[str, Any] = {f"stack{i}": stack for i, stack in enumerate(stacks)}
        np.savez(partial, key=np.array(key), **named)
    return stacks
