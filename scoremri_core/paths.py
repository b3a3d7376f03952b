"""Paths of files: checked before the work; written atomically."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from scoremri_core.errors import InputError

PathLike = str | os.PathLike[str]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of a disk, a quota, a limit on files
NOT_REGULAR = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def check_readable(path: PathLike) -> None:
    """Refuse, with InputError, what is not a regular file or may not be read."""
    if what := _not_regular(path):
        raise InputError(f"{path}: {what}, expected a file")
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: no permission to read it")


def check_writable(path: PathLike, *sources: PathLike, new_folder: bool = False) -> None:
    """Refuse, with InputError, a path where no file can be written.

    Called before the work whose result is written.

    Parameters
    ----------
    path : a regular file, new or to be replaced, or a link to one, which stays a link
    sources : files that must not be replaced
    new_folder : whether the folder of `path` will be made if it does not exist
    """
    target = _followed(path)
    check_length(path, target)
    if what := _not_regular(path):
        raise InputError(f"{path}: {what}, expected a file to write")
    folder = target.parent
    if new_folder and not os.path.exists(folder):
        check_folder(folder)
        return
    if not os.path.isdir(folder):
        raise InputError(f"{path}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{path}: no permission to write in {folder}")
    for source in sources:
        # which may both be new
        if os.path.realpath(source) == os.path.realpath(path) or _are_one_file(path, source):
            raise InputError(f"{path}: the result would replace what it is made from")


def check_new(
    path: PathLike, overwrite: bool, *sources: PathLike, new_folder: bool = False
) -> None:
    """As `check_writable`; refuse a file that exists as well, unless it may be overwritten."""
    check_writable(path, *sources, new_folder=new_folder)
    check_absent(path, overwrite)


def check_absent(path: PathLike, overwrite: bool, how: str = "--overwrite") -> None:
    """Refuse, with InputError that says how, to replace what is there, unless that was asked for.

    A link counts, wherever it leads.
    """
    if not overwrite and os.path.lexists(path):
        raise InputError(f"{path}: already exists; {how} replaces it")


def check_folder(folder: PathLike) -> None:
    """Refuse, with InputError, a folder for results that does not exist and cannot be made."""
    path = Path(folder).absolute()
    check_length(folder, path)
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"{folder}: no folder can be made there for the results")


def check_new_folder(folder: PathLike, overwrite: bool) -> None:
    """Refuse, with InputError, a folder that cannot be made anew with all that is in it."""
    check_folder(Path(folder).parent)
    check_length(folder, Path(folder))
    check_absent(folder, overwrite)
    if os.path.lexists(folder) and (os.path.islink(folder) or not os.path.isdir(folder)):
        raise InputError(f"{folder}: not a folder, expected one to replace")


def _not_regular(path: PathLike) -> str:
    """What lies at `path`, links followed; empty for a regular file, and for nothing."""
    try:
        return NOT_REGULAR.get(stat.S_IFMT(os.stat(path).st_mode), "")
    except OSError:
        return ""


def _are_one_file(one: PathLike, other: PathLike) -> bool:
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def _followed(path: PathLike) -> Path:
    """The file that is written for `path`: where links lead."""
    target = Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)
    if os.path.islink(target):
        raise InputError(f"{path}: a link that leads back to itself")
    return target


def check_length(path: PathLike, target: Path) -> None:
    """Refuse `path`, with InputError, where the file system has no room for the name `target`.

    The path of the temporary file counts as well.
    """
    whole = target.absolute()
    partial = whole.parent / (_hidden(whole.stem) + "x" * 8) / "new" / whole.name
    there = next((folder for folder in whole.parents if os.path.isdir(folder)), whole)
    names = whole.relative_to(there).parts
    for place in (partial, *(there / name for name in names)):
        try:
            os.lstat(place)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise InputError(f"{path}: the name is too long for the file system") from error


def _hidden(stem: str) -> str:
    """Beginning of the name of a temporary folder, to which eight characters are added."""
    return f".{stem[:16]}."


@contextmanager
def writing(path: PathLike) -> Iterator[None]:
    """Report a disk that fills up while `path` is written: InputError."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise InputError(f"{path}: cannot be written: {os.strerror(error.errno)}") from error


@contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """Yield a temporary path of the same name, which takes the place of `path` after the block.

    If the block fails, nothing is left of it.  Where `path` is a link, the file that it leads to is
    replaced.

    Raises
    ------
    InputError
        Where `path` cannot be written, or the disk is full.
    """
    check_writable(path)
    target = _followed(path)
    folder = TemporaryDirectory(prefix=_hidden(target.stem), dir=target.parent)
    with writing(path), folder as made:
        partial = Path(made) / target.name
        yield partial
        os.replace(partial, target)


@contextmanager
def placing(folder: PathLike) -> Iterator[Path]:
    """Yield a temporary folder whose files and folders move to `folder` after the block.

    They take the place of those of the same name.

    Raises
    ------
    InputError
        Where the folder cannot be written to, or the disk is full.
    """
    target = Path(folder)
    check_writable(target / "new")
    with writing(target), TemporaryDirectory(prefix=_hidden("scoremri"), dir=target) as made:
        partial = Path(made) / "new"
        partial.mkdir()
        yield partial
        for entry in sorted(partial.iterdir()):
            place = target / entry.name
            if entry.is_dir():
                check_new_folder(place, overwrite=True)
                if place.is_dir():
                    os.replace(place, Path(made) / entry.name)
                os.replace(entry, place)
            else:
                with replacing(place) as file:
                    shutil.move(entry, file)
