"""Output files that are written completely or not at all."""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nmn_export.errors import NmnExportError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None}
"""Errors of a write that finds no space; NumPy's error has no number."""


_STAGING_PREFIX = ".nmn-export-"
"""Prefix of the folders beside an output in which it is written."""

_STAGING_FOLDER = re.compile(re.escape(_STAGING_PREFIX) + "[a-z0-9_]{8}")
"""Names that `tempfile` makes with this prefix; no other folder is ever removed."""


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yield a path to write to, and move what was written to `path` if no error was raised.

    Files whose names begin with that of `path` are moved along with it, before `path` itself. If
    `path` is a link, they go to the folder that it points to, and it stays a link. Folders that
    killed processes left there are removed.

    Raises:
        NmnExportError: The folder of `path` does not exist, cannot be written to or is full, or
            `path` is not a file.
    """
    _check_replaceable(path)
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    _remove_stale_folders(target.parent)
    with _disk_errors(target.parent), _staging_folder(target.parent) as folder:
        staging = folder / target.name
        yield staging
        for file in sorted(folder.iterdir(), key=lambda f: f == staging):
            file.replace(target.parent / file.name)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise NmnExportError(
            "The output folder must have room for the file",
            got=f"'{folder}' ({error.strerror or error})",
            fix="Free some space, or choose another folder.",
        ) from error


@contextmanager
def _staging_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder in `parent`, locked while this process lives, and remove it at the end."""
    try:
        folder, descriptor = _locked_folder(parent)
    except OSError as error:
        raise NmnExportError(
            "The output folder must exist and be writable",
            got=f"'{parent}' ({error.strerror})",
            fix="Create it or choose another.",
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _locked_folder(parent: Path) -> tuple[Path, int]:
    """Make a folder and return it with the descriptor that holds its lock."""
    while True:
        # A file's name may be as long as names can be, so the folder's does not contain it.
        folder = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=parent))
        # Until it is locked, another process may take the folder for a stale one and remove it.
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY)
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return folder, descriptor
            os.close(descriptor)


def _remove_stale_folders(parent: Path) -> None:
    """Remove the folders of processes that were killed. The kernel has released their locks."""
    for folder in filter(lambda f: _STAGING_FOLDER.fullmatch(f.name), parent.glob(".*")):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # not a folder, already removed, or not ours to read
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            pass  # in use, or on a file system without locks
        finally:
            os.close(descriptor)


def _check_replaceable(path: Path) -> None:
    """Refuse what is not a file: a device, for instance, would be gone."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise NmnExportError(
                "The name of an output file has at most 255 bytes",
                got=f"{len(os.fsencode(path.name))} bytes ({error.strerror})",
                fix="Choose a shorter one.",
            ) from error
        if error.errno == errno.ELOOP:
            raise NmnExportError(
                "The output must be a file",
                got=f"'{path}' ({error.strerror})",
                fix="Name a file that is not a link to itself.",
            ) from error
        return  # there is nothing, or the folder will say what is wrong
    if stat.S_ISDIR(mode):
        raise NmnExportError(
            "The output must be a file", got=f"the folder '{path}'", fix="Name a file in it."
        )
    if not stat.S_ISREG(mode):
        raise NmnExportError(
            "The output must be a file",
            got=f"the device, pipe or socket '{path}'",
            fix="Name a file; it is put in place as a whole.",
        )
