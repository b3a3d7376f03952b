"""Training slices, prepared once and kept on disk."""

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

FORMAT = 1  # of the cached slices: another number makes them anew


@dataclass(frozen=True)
class Slice:
    """One slice, the 99th percentile of its magnitude scaled to 1: float16, or complex64."""

    image: NDArray[Any]
    subject: str
    contrast: str
    weight: float = 1.0  # how often it is drawn in training


def load_slices(
    sources: Sequence[Source],
    cache: Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Slice]:
    """Read every slice that holds something.

    Parameters
    ----------
    sources : what to read, in this order.
    cache : folder of prepared slices, one .npz for each file, which belongs to that file's size
        and time of change and to how it is read; one that does not, or is damaged, is made anew.
    progress : called after each file with the number of files done.

    Raises
    ------
    InputError : a file that cannot be read; not one slice with anything in it.
    """
    slices: list[Slice] = []
    for done, source in enumerate(sources, 1):
        stacks = read_stacks(source) if cache is None else _cached(source, cache)
        of = (source.subject, source.contrast, source.weight)
        slices += [Slice(image, *of) for stack in stacks for image in stack]
        logger.debug("%s: %d slices so far", source.path, len(slices))
        progress(done)
    if not slices:
        raise InputError(f"{sources[0].path}: no slice with anything in it")
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
    if sidecar := find_sidecar(path):  # which names the axes of an array
        parts.append(sidecar.stat().st_mtime_ns)
    key = json.dumps(parts)
    kept = folder / f"{hashlib.sha256(str(path).encode()).hexdigest()[:24]}.npz"
    if kept.is_file():
        try:
            with kept.open("rb") as file, np.load(file) as arrays:
                if str(arrays["key"]) == key:
                    return [arrays[f"stack{i}"] for i in range(len(arrays.files) - 1)]
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            logger.info("%s: damaged, made anew", kept)
    stacks = read_stacks(source)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(kept) as partial:
        named: dict[str, Any] = {f"stack{i}": stack for i, stack in enumerate(stacks)}
        np.savez(partial, key=np.array(key), **named)
    return stacks
