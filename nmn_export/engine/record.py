"""The record of an engine: a JSON file next to it."""

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
"""Version of the JSON format; other versions are rejected."""

SUFFIXES = (".engine", ".plan")
"""File name suffixes of engines."""

PluginMode = Literal["auto", "require", "off"]


@dataclass(frozen=True)
class FileRecord:
    """Name, SHA-256 and size in bytes of a file."""

    file: str
    sha256: str
    bytes: int

    @classmethod
    def of(cls, path: Path, name: str | None = None) -> "FileRecord":
        """Return the record of the file at `path`, under `name` if it will be renamed."""
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return cls(name or path.name, digest, path.stat().st_size)


@dataclass(frozen=True)
class PluginRecord:
    """How ⵟ ops are computed.

    Attributes:
        mode: The requested plugin mode.
        layers: Number of ⵟ ops that are plugin layers in TensorRT's network.
        decomposed: Number of ⵟ ops that are decomposed into standard ops.
        reasons: Why a node is decomposed, by node name; empty with mode "off".
        library: The plugin library, or `None` if no layer needs it.
        version: Version of the library.
        embedded: Whether the engine contains the library.
        others: Names of plugin layers that do not come from a ⵟ op; not included in `layers`.
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
    """The optimization profile of an input with dynamic axes."""

    min: list[int]
    opt: list[int]
    max: list[int]


@dataclass(frozen=True)
class EngineRecord:
    """How an engine was built and what it contains.

    Attributes:
        engine: The engine file.
        model: The ONNX file it was built from, without external weights.
        model_metadata: The metadata that `export` wrote into the ONNX file, by key.
        nmn_export: Version of this package.
        tensorrt_package: The package that built it.
        tensorrt: The version of that package.
        compute_capabilities: Capabilities it was built for, as in 8.9; empty for the GPU of the
            build machine.
        tf32: Whether float32 products may use TF32.
        plugin: How ⵟ ops are computed.
        inputs: Inputs; a dynamic axis has size -1.
        outputs: Outputs.
        profile: The shapes of each input with dynamic axes.
        layer_counts: Number of layers of TensorRT's network, by type.
        layers: The layers of TensorRT's network.
        engine_layers: The fused layers of the engine, or `None` if it was built without a GPU.
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
        """Return the record as JSON. The format version comes first."""
        values = dataclasses.asdict(self)
        return json.dumps({"format": values.pop("format")} | values, indent=1, ensure_ascii=False)


def is_engine(path: Path) -> bool:
    """Return whether the file name has the suffix of an engine."""
    return path.suffix in SUFFIXES


def record_path(engine: Path) -> Path:
    """Return the path of an engine's record: next to the file, also if `engine` is a link."""
    file = Path(os.path.realpath(engine)) if engine.is_symlink() else engine
    return file.parent / f"{file.name}.json"


def read_record(engine: Path) -> EngineRecord:
    """Read the record of an engine, and check that it describes this engine.

    Raises:
        NmnExportError: A file is missing, the record has another format, or the engine has changed
            since it was built.
    """
    path = record_path(engine)
    for file in (engine, path):
        if not file.is_file():
            raise NmnExportError(
                "An engine and its record must be in the same folder",
                got=f"no file '{file}'",
                fix="Build the engine with `nmn-export build`, and copy both files.",
            )
    try:
        record = _read(path.read_text())
    except json.JSONDecodeError as error:
        raise _invalid_record(path, "no JSON") from error
    except (ValueError, TypeError, RecursionError, OSError) as error:
        raise _invalid_record(path, str(error)) from error
    actual = FileRecord.of(engine)
    if actual.sha256 != record.engine.sha256:
        raise NmnExportError(
            "An engine must not change after it was built",
            got=f"'{engine}', {actual.bytes} bytes, whose hash differs from that in '{path.name}'",
            fix="Copy both files again, or build the engine again.",
        )
    return record


def _invalid_record(path: Path, got: str) -> NmnExportError:
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
    consistent = {
        "layer_counts": record.layer_counts == counts,
        "plugin.layers": plugin.layers + len(plugin.others) == counts[PLUGIN_LAYER],
        # With mode "off" nodes are decomposed without a reason.
        "plugin.decomposed": plugin.mode == "off" or plugin.decomposed == len(plugin.reasons),
    }
    for name, agrees in consistent.items():
        if not agrees:
            raise ValueError(f"{name}, which contradicts the rest of the record")
    return record
