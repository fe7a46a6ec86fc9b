"""The files of a build: written at the end, all of them or none."""

import mmap
import shutil
from pathlib import Path

from nmn_export.engine.plugin_library import PluginLibrary
from nmn_export.engine.protocol import ENGINE, TIMING_CACHE
from nmn_export.engine.record import SUFFIXES, EngineRecord, is_engine, record_path
from nmn_export.errors import NmnExportError
from nmn_export.graph.file import staged


def check_output(model: Path, engine: Path, timing_cache: Path | None) -> None:
    """Find out before a long build what would stop it at its end.

    Raises:
        NmnExportError: The engine is not named as one, a file cannot be written there, or two
            would be the same.
    """
    written = [engine, record_path(engine), *([timing_cache] if timing_cache else [])]
    names = {path.resolve() for path in (model, *written)}
    if len(names) <= len(written):
        raise NmnExportError(
            "The model, the engine, its record and the timing cache are different files",
            got=", ".join(f"'{path}'" for path in (model, *written)),
            fix="Name another file to write.",
        )
    for path in written:
        with staged(path):
            pass
    if not is_engine(engine):
        raise NmnExportError(
            f"The name of an engine ends in {' or '.join(SUFFIXES)}, by which it is known as one",
            got=f"'{engine}'",
            fix=f"Name it '{engine.with_suffix(SUFFIXES[0])}'.",
        )


def place(folder: Path, engine: Path, record: EngineRecord, timing_cache: Path | None) -> None:
    """Move what was built from the shared folder to where it belongs.

    Raises:
        NmnExportError: There is no room for it.
    """
    try:
        with staged(engine) as file:
            shutil.move(folder / ENGINE, file)
            record_path(file).write_text(record.to_json() + "\n")
        if timing_cache:
            with staged(timing_cache) as file:
                shutil.move(folder / TIMING_CACHE, file)
    except OSError as error:
        raise NmnExportError(
            "The output folder must have room for the engine",
            got=f"'{engine.parent}' ({error.strerror})",
            fix="Make room, or choose another.",
        ) from error


def check_embedded(folder: Path, library: PluginLibrary) -> None:
    """Look for the library in the engine that was to hold it.

    Raises:
        NmnExportError: It is not there.
    """
    with (folder / ENGINE).open("rb") as stream:
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        with content:
            found = content.find(library.path.read_bytes()) >= 0
    if not found:
        raise NmnExportError(
            "--embed-plugin puts the plugin library into the engine",
            got="an engine of TensorRT's without it",
            fix="Build without --embed-plugin, and keep the library beside the engine.",
        )
