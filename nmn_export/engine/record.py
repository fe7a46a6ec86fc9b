"""What is known of an engine: the JSON file beside it."""

import dataclasses
import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nmn_export.engine.process.messages import Layer, TensorInfo
from nmn_export.engine.tensorrt_api import PLUGIN_LAYER
from nmn_export.engine.typed_json import revive
from nmn_export.errors import NmnExportError

FORMAT = 1
"""Version of the JSON; a reader refuses others."""

SUFFIXES = (".engine", ".plan")
"""By which a file is known to be an engine."""

PluginMode = Literal["auto", "require", "off"]


@dataclass(frozen=True)
class FileRecord:
    """A file: its name, its SHA-256 and its size in bytes."""

    file: str
    sha256: str
    bytes: int

    @classmethod
    def of(cls, path: Path, name: str | None = None) -> "FileRecord":
        """Read a file that is there, or will be, under `name`."""
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return cls(name or path.name, digest, path.stat().st_size)


@dataclass(frozen=True)
class PluginRecord:
    """How ⵟ ops are computed.

    Attributes:
        mode: What was asked for.
        layers: ⵟ ops that the plugin computes: layers of TensorRT's network, counted.
        decomposed: ⵟ ops that are made of standard ones instead.
        reasons: Why, by name of the node; those for which nobody asked for a plugin have none.
        library: The library, or `None` if no layer needs it.
        version: Of the library.
        embedded: Whether the engine holds the library.
        others: Layers of plugins that stand for no ⵟ op, by name; `layers` does not count them.
    """

    mode: PluginMode
    layers: int
    decomposed: int
    reasons: dict[str, str]
    library: FileRecord | None
    version: str | None
    embedded: bool
    others: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ShapesRecord:
    """The shapes of one input that varies."""

    min: list[int]
    opt: list[int]
    max: list[int]


@dataclass(frozen=True)
class EngineRecord:
    """An engine.

    Attributes:
        engine: The file of the engine.
        model: The ONNX file it was built from, weights in other files aside.
        model_metadata: What that file says of where it comes from, by key.
        nmn_export: Version of this package.
        tensorrt_package: The package that built it.
        tensorrt: The version of that package.
        compute_capabilities: Those it was built for, as in 8.9; if none, the GPU it was built on.
        tf32: Whether products of float32 may be made in TF32.
        plugin: How ⵟ ops are computed.
        inputs: Inputs; a size that varies is -1.
        outputs: Outputs.
        profile: The shapes of each input that varies.
        layer_counts: How many layers of each type TensorRT's network has.
        layers: These layers.
        engine_layers: Those of the built engine, fused, or `None` if it was built without a GPU.
        format: Version of this record.
    """

    engine: FileRecord
    model: FileRecord
    model_metadata: dict[str, str]
    nmn_export: str
    tensorrt_package: str
    tensorrt: str
    compute_capabilities: list[str]
    tf32: bool
    plugin: PluginRecord
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    profile: dict[str, ShapesRecord]
    layer_counts: dict[str, int]
    layers: list[Layer]
    engine_layers: list[Layer] | None
    format: int = FORMAT

    def to_json(self) -> str:
        """Return the record as JSON, the format's version first."""
        values = dataclasses.asdict(self)
        return json.dumps({"format": values.pop("format")} | values, indent=1, ensure_ascii=False)


def is_engine(path: Path) -> bool:
    """Whether a file is an engine by its name."""
    return path.suffix in SUFFIXES


def record_path(engine: Path) -> Path:
    """Return where the record of an engine lies: beside the file, also if `engine` is a link."""
    file = Path(os.path.realpath(engine)) if engine.is_symlink() else engine
    return file.parent / f"{file.name}.json"


def read_record(engine: Path) -> EngineRecord:
    """Read the record beside an engine, and check that the engine is the one it speaks of.

    Raises:
        NmnExportError: One of the files is missing, the record is not one of this format, or the
            engine has changed since it was built.
    """
    path = record_path(engine)
    for file in (engine, path):
        if not file.is_file():
            raise NmnExportError(
                "An engine lies beside its record",
                got=f"no file '{file}'",
                fix="Build the engine with `nmn-export build`, and copy both files.",
            )
    try:
        record = _read(path.read_text())
    except json.JSONDecodeError as error:
        raise _no_record(path, "no JSON") from error
    except (ValueError, TypeError, RecursionError, OSError) as error:
        raise _no_record(path, str(error)) from error
    found = FileRecord.of(engine)
    if found.sha256 != record.engine.sha256:
        raise NmnExportError(
            "An engine must be as it was built",
            got=f"'{engine}', {found.bytes} bytes, whose hash is not the one in '{path.name}'",
            fix="Copy both files again, or build the engine again.",
        )
    return record


def _no_record(path: Path, got: str) -> NmnExportError:
    return NmnExportError(
        f"The record of an engine must be JSON of format {FORMAT}",
        got=f"{got}: '{path}'",
        fix="Build the engine again with `nmn-export build`.",
    )


def _read(text: str) -> EngineRecord:
    values = json.loads(text)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError("another format")
    record: EngineRecord = revive(EngineRecord, values)
    plugin, counts = record.plugin, Counter(layer.type for layer in record.layers)
    agree = {
        "layer_counts": record.layer_counts == counts,
        "plugin.layers": plugin.layers + len(plugin.others) == counts[PLUGIN_LAYER],
        # Whoever asks for no plugin needs no reason.
        "plugin.decomposed": plugin.mode == "off" or plugin.decomposed == len(plugin.reasons),
    }
    for name, agrees in agree.items():
        if not agrees:
            raise ValueError(f"{name}, which disagrees with the rest of it")
    return record
