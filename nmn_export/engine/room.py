"""The folder for temporary files, which has to be good enough."""

import tempfile
from pathlib import Path

from nmn_export.errors import NmnExportError


def no_room(what: str, folder: Path, error: OSError) -> NmnExportError:
    """Return what to say where something does not fit into the shared folder."""
    return NmnExportError(
        f"The folder for temporary files must have room for {what}",
        got=f"'{folder.parent}' ({error.strerror})",
        fix="Make room, or name another in the environment variable TMPDIR.",
    )


def check_name() -> None:
    """Look whether the dynamic linker can be told of a folder in that for temporary files.

    Raises:
        NmnExportError: Its path has a character that separates folders in LD_LIBRARY_PATH.
    """
    folder = tempfile.gettempdir()
    if set(folder) & set(":;"):
        raise NmnExportError(
            "The folder for temporary files must have no : and no ; in its path",
            got=f"'{folder}'",
            fix="Name another in the environment variable TMPDIR.",
        )
