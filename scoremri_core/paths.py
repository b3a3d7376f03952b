"""Check paths before a computation, and write files atomically."""

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

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk full, quota or file size exceeded
NOT_REGULAR = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def check_readable(path: PathLike) -> None:
    """Check that a path is a readable regular file.

    Parameters
    ----------
    path : str or path-like

    Raises
    ------
    InputError
        It is not.
    """
    if what := _not_regular(path):
        raise InputError(f"{path}: {what}, expected a file")
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: no permission to read it")


def check_writable(path: PathLike, *sources: PathLike, new_folder: bool = False) -> None:
    """Check that a file can be written.

    Parameters
    ----------
    path : str or path-like
        New or existing regular file, or a link to one.
    *sources : str or path-like
        Input files, which must not be replaced.
    new_folder : bool
        Whether the folder of `path` may be missing because it will be created.

    Raises
    ------
    InputError
        The file cannot be written.
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
        # realpath also compares files that do not exist yet
        if os.path.realpath(source) == os.path.realpath(path) or _are_same_file(path, source):
            raise InputError(f"{path}: the output would replace the input")


def check_new(
    path: PathLike, overwrite: bool, *sources: PathLike, new_folder: bool = False
) -> None:
    """Check that a file can be written and does not exist, unless it may be overwritten.

    Parameters
    ----------
    path : str or Path
        See `check_writable`.
    overwrite : bool
        Allow an existing file.
    *sources : str or Path
        See `check_writable`.
    new_folder : bool, optional
        See `check_writable`.

    Raises
    ------
    InputError
        The file cannot be written, or exists.
    """
    check_writable(path, *sources, new_folder=new_folder)
    check_absent(path, overwrite)


def check_absent(path: PathLike, overwrite: bool, how: str = "--overwrite") -> None:
    """Check that a path, or a link at it, does not exist, unless it may be overwritten.

    Parameters
    ----------
    path : str or path-like
    overwrite : bool
        Allow an existing path.
    how : str
        Option that allows it, for the error message.

    Raises
    ------
    InputError
        The path exists.
    """
    if not overwrite and os.path.lexists(path):
        raise InputError(f"{path}: already exists; {how} replaces it")


def check_folder(folder: PathLike) -> None:
    """Check that a folder for results exists and is writable, or can be created.

    Parameters
    ----------
    folder : str or path-like

    Raises
    ------
    InputError
        It cannot be used.
    """
    path = Path(folder).absolute()
    check_length(folder, path)
    existing = next(place for place in (path, *path.parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(f"{folder}: cannot create a folder for the results")


def check_new_folder(folder: PathLike, overwrite: bool) -> None:
    """Check that a new folder can be created, or replace an existing one.

    Parameters
    ----------
    folder : str or path-like
    overwrite : bool
        Allow an existing folder.

    Raises
    ------
    InputError
        It cannot be created, exists and must not be overwritten, or is not a folder.
    """
    check_folder(Path(folder).parent)
    check_length(folder, Path(folder))
    check_absent(folder, overwrite)
    if os.path.lexists(folder) and (os.path.islink(folder) or not os.path.isdir(folder)):
        raise InputError(f"{folder}: not a folder, expected one to replace")


def _not_regular(path: PathLike) -> str:
    """Describe a path that is not a regular file; empty for regular and missing files."""
    try:
        return NOT_REGULAR.get(stat.S_IFMT(os.stat(path).st_mode), "")
    except OSError:
        return ""


def _are_same_file(one: PathLike, other: PathLike) -> bool:
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def _followed(path: PathLike) -> Path:
    """Resolve a link to the file that is written."""
    target = Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)
    if os.path.islink(target):
        raise InputError(f"{path}: a circular link")
    return target


def check_length(path: PathLike, target: Path) -> None:
    """Check that names do not exceed the limits of the file system, with the temporary ones.

    Parameters
    ----------
    path : str or path-like
        For the error message.
    target : Path
        File to write.

    Raises
    ------
    InputError
        The name is too long.
    """
    whole = target.absolute()
    partial = whole.parent / (_hidden(whole.stem) + "x" * 8) / "new" / whole.name
    existing = next((folder for folder in whole.parents if os.path.isdir(folder)), whole)
    names = whole.relative_to(existing).parts
    for place in (partial, *(existing / name for name in names)):
        try:
            os.lstat(place)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise InputError(f"{path}: the name is too long for the file system") from error


def _hidden(stem: str) -> str:
    """Prefix of the name of a temporary folder, followed by eight characters."""
    return f".{stem[:16]}."


@contextmanager
def writing(path: PathLike) -> Iterator[None]:
    """Convert errors of a full disk to InputError.

    Parameters
    ----------
    path : str or path-like
        For the error message.

    Raises
    ------
    InputError
        The disk is full, or a quota exceeded.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise InputError(f"{path}: cannot be written: {os.strerror(error.errno)}") from error


@contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """Yield a temporary path of the same name that replaces `path` if the block succeeds.

    Parameters
    ----------
    path : str or path-like
        File; of a link, the target is replaced.

    Yields
    ------
    Path
        Removed if the block fails.

    Raises
    ------
    InputError
        `path` cannot be written, or the disk is full.
    """
    check_writable(path)
    target = _followed(path)
    folder = TemporaryDirectory(prefix=_hidden(target.stem), dir=target.parent)
    with writing(path), folder as temporary:
        partial = Path(temporary) / target.name
        yield partial
        os.replace(partial, target)


@contextmanager
def placing(folder: PathLike) -> Iterator[Path]:
    """Yield a temporary folder whose entries move to `folder` if the block succeeds.

    Entries of the same name are replaced.

    Parameters
    ----------
    folder : str or path-like

    Yields
    ------
    Path
        Removed if the block fails.

    Raises
    ------
    InputError
        The folder cannot be written to, or the disk is full.
    """
    target = Path(folder)
    check_writable(target / "new")
    with writing(target), TemporaryDirectory(prefix=_hidden("scoremri"), dir=target) as temporary:
        partial = Path(temporary) / "new"
        partial.mkdir()
        yield partial
        for entry in sorted(partial.iterdir()):
            place = target / entry.name
            if entry.is_dir():
                check_new_folder(place, overwrite=True)
                if place.is_dir():
                    os.replace(place, Path(temporary) / entry.name)
                os.replace(entry, place)
            else:
                with replacing(place) as file:
                    shutil.move(entry, file)
