"""Errors of the folder for temporary files."""

import tempfile
from pathlib import Path

from nmn_export.errors import NmnExportError


def write_error(content: str, folder: Path, error: OSError) -> NmnExportError:
    """Return the error for `content` that could not be written to the shared folder."""
    return NmnExportError(
        f"The folder for temporary files must have room for {content}",
        got=f"'{folder.parent}' ({error.strerror})",
        fix="Free some space, or set the environment variable TMPDIR to another folder.",
    )


def check_temporary_folder() -> None:
    """Check that LD_LIBRARY_PATH can contain the path of the folder for temporary files.

    Raises:
        NmnExportError: The path contains a separator of LD_LIBRARY_PATH.
    """
    folder = tempfile.gettempdir()
    if set(folder) & set(":;"):
        raise NmnExportError(
            "The path of the folder for temporary files must not contain : or ;",
            got=f"'{folder}'",
            fix="Set the environment variable TMPDIR to another folder.",
        )
