"""The output files of a build. Either all of them are written, or none."""

import mmap
import shutil
from pathlib import Path

from nmn_export.engine.plugin_library import PluginLibrary
from nmn_export.engine.process.messages import ENGINE, TIMING_CACHE
from nmn_export.engine.record import SUFFIXES, EngineRecord, is_engine, record_path
from nmn_export.errors import NmnExportError
from nmn_export.graph.file import staged


def check_output(model: Path, engine: Path, timing_cache: Path | None) -> None:
    """Check the output paths before a long build.

    Raises:
        NmnExportError: The engine has the wrong suffix, a file cannot be written, or two paths are
            the same file.
    """
    written = [engine, record_path(engine), *([timing_cache] if timing_cache else [])]
    names = {path.resolve() for path in (model, *written)}
    if len(names) <= len(written):
        raise NmnExportError(
            "The model, the engine, its record and the timing cache must be different files",
            got=", ".join(f"'{path}'" for path in (model, *written)),
            fix="Choose another output file.",
        )
    for path in written:
        with staged(path):
            pass
    if not is_engine(engine):
        raise NmnExportError(
            f"The file name of an engine must end in {' or '.join(SUFFIXES)}",
            got=f"'{engine}'",
            fix=f"Name it '{engine.with_suffix(SUFFIXES[0])}'.",
        )


def place(folder: Path, engine: Path, record: EngineRecord, timing_cache: Path | None) -> None:
    """Move the engine and the timing cache from the shared folder to their output paths.

    Raises:
        NmnExportError: A file cannot be written.
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
            "The files of the engine must be written",
            got=f"'{error.filename or engine}' ({error.strerror})",
            fix="Check the output folder and the folder for temporary files.",
        ) from error


def check_embedded(folder: Path, library: PluginLibrary) -> None:
    """Check that the engine contains the plugin library.

    Raises:
        NmnExportError: It does not.
    """
    with (folder / ENGINE).open("rb") as stream:
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        with content:
            embedded = content.find(library.path.read_bytes()) >= 0
    if not embedded:
        raise NmnExportError(
            "--embed-plugin must put the plugin library into the engine",
            got="an engine without it",
            fix="Build without --embed-plugin, and keep the library beside the engine.",
        )
