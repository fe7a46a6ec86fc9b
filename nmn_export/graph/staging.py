"""A folder for files that are not finished yet. One that a killed run left is removed by the next.

A run holds a lock in its folder, which the system releases when the process ends, however it ends.
"""

import contextlib
import fcntl
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType

_PREFIX = ".nmn-"
_LOCK = ".nmn-lock"
_FILES = "files"

_DAY = 24 * 3600
"""Seconds after which the folder of another machine counts as abandoned."""


class StagingFolder:
    """An empty folder, removed with its contents at the end of a `with` block.

    Args:
        parent: Folder that holds it. Staging folders that killed runs left there are removed.

    Raises:
        OSError: `parent` does not exist or cannot be written to.
    """

    def __init__(self, parent: Path) -> None:
        with contextlib.suppress(OSError):  # mkdtemp reports what is wrong with the parent
            _remove_abandoned(parent)
        while not self._claim(Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))):
            pass

    def _claim(self, folder: Path) -> bool:
        """Lock a new folder; fail if another run has removed it before it was locked."""
        try:
            self._lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileNotFoundError:
            return False
        self._folder = folder
        try:
            with contextlib.suppress(OSError):  # without locks, no other run removes the folder
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            os.write(self._lock, _host())
            if not os.fstat(self._lock).st_nlink:
                os.close(self._lock)
                return False
            (folder / _FILES).mkdir()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return True

    def __enter__(self) -> Path:
        return self._folder / _FILES

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _remove(self._folder)
        os.close(self._lock)


def _host() -> bytes:
    return platform.node().encode()


def _remove_abandoned(parent: Path) -> None:
    """Remove the staging folders of runs that have ended."""
    with os.scandir(parent) as entries:
        folders = [
            Path(entry.path)
            for entry in entries
            if entry.name.startswith(_PREFIX) and entry.is_dir(follow_symlinks=False)
        ]
    for folder in folders:
        with contextlib.suppress(OSError):
            try:
                lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            except FileNotFoundError:
                folder.rmdir()  # which only removes an empty folder
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_abandoned(lock):
                    _remove(folder)
            finally:
                os.close(lock)


def _is_abandoned(lock: int) -> bool:
    """Decide whether a lock that could be taken proves that its run has ended.

    On a network file system, a machine may not see the locks of the others. So the folder of
    another machine has to be old as well.
    """
    age = time.time() - os.fstat(lock).st_mtime
    return os.read(lock, 1024) in {b"", _host()} or age > _DAY


def _remove(folder: Path) -> None:
    """Remove what a run puts into its folder, the lock last, and the folder if it is empty then."""
    shutil.rmtree(folder / _FILES, ignore_errors=True)
    with contextlib.suppress(OSError):
        if not (folder / _FILES).exists():
            (folder / _LOCK).unlink(missing_ok=True)
            folder.rmdir()
