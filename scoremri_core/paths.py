"""Places of files: checked before the work, and written whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scoremri_core.errors import InputError

PathLike = str | os.PathLike[str]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of a disk, a quota, a limit on files


def check_readable(path: PathLike) -> None:
    """Refuse, with InputError, what is no file or may not be read."""
    if Path(path).is_dir():
        raise InputError(f"{path}: a folder, expected a file")
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: no permission to read it")


def check_writable(path: PathLike, *sources: PathLike) -> None:
    """Refuse, with InputError, a path where no file can be written, or that is one of `sources`.

    Called before the work whose outcome is written.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"{target}: the folder {target.parent} does not exist")
    if target.is_dir():
        raise InputError(f"{target}: a folder, expected a file to write")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"{target}: no permission to write in {target.parent}")
    for source in map(Path, sources):
        if target.exists() and source.exists() and target.samefile(source):
            raise InputError(f"{target}: the result would replace what it is made from")


def check_new(path: PathLike, overwrite: bool, *sources: PathLike) -> None:
    """As `check_writable`; refuse a file that exists as well, unless it may be overwritten."""
    check_writable(path, *sources)
    check_absent(path, overwrite)


def check_absent(path: PathLike, overwrite: bool, how: str = "--overwrite") -> None:
    """Refuse, with InputError that says how, to replace what is there, unless that was asked for.

    A link counts, wherever it leads.
    """
    if not overwrite and os.path.lexists(path):
        raise InputError(f"{path}: is there already; {how} replaces it")


def check_folder(folder: PathLike) -> None:
    """Refuse, with InputError, a folder for results that is not there and cannot be made."""
    path = Path(folder).absolute()
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"{folder}: no folder can be made there for the results")


@contextmanager
def writing(path: PathLike) -> Iterator[None]:
    """Tell of a disk that fills up as `path` is written: InputError."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise InputError(f"{path}: cannot be written: {os.strerror(error.errno)}") from error


@contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place once the block succeeds.

    Raises
    ------
    InputError
        Where the folder of `path` cannot be written to, or the disk is full.
    """
    check_writable(path)
    target = Path(path)
    # The suffix stays, since some writers choose the format by it.
    partial = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        with writing(target):
            yield partial
            os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def placing(folder: PathLike) -> Iterator[Path]:
    """Give a temporary folder whose files and folders move to `folder` once the block succeeds.

    They take the place of those of the same name.

    Raises
    ------
    InputError
        Where the folder cannot be written to, or the disk is full.
    """
    target = Path(folder)
    check_writable(target / "new")
    with (
        writing(target),
        tempfile.TemporaryDirectory(prefix=".scoremri", dir=target) as made,
    ):
        partial = Path(made) / "new"
        partial.mkdir()
        yield partial
        for entry in sorted(partial.iterdir()):
            place = target / entry.name
            if place.is_dir():
                os.replace(place, Path(made) / entry.name)
            os.replace(entry, place)
