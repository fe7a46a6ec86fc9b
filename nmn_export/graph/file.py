"""ONNX files: written with their metadata, and read only if they are ours and complete."""

import math
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx.external_data_helper import uses_external_data

from nmn_export.errors import NmnExportError
from nmn_export.ops import DOMAIN

EXTERNAL_DATA_THRESHOLD = 1_800_000_000
"""Bytes of weights above which they go to a file of their own; protobuf itself stops at 2 GB."""

METADATA_PREFIX = "nmn_export."
"""Of the keys under which a file says where it comes from."""

EXAMPLE_SHAPES = METADATA_PREFIX + "example_shapes"
"""Metadata key of the shapes that the model was exported with: sizes it is known to take."""


def save(model: ir.Model, path: Path) -> None:
    """Write a model to `path`, and its weights to `path`.data if they are too large for it.

    Raises:
        onnx.checker.ValidationError: The model is not valid ONNX: a defect of ours.
    """
    weights = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value)
    external = f"{path.name}.data" if weights > EXTERNAL_DATA_THRESHOLD else None
    ir.save(model, path, external_data=external)
    onnx.checker.check_model(str(path), full_check=True)


def load(path: Path) -> onnx.ModelProto:
    """Read a file of ours, external data included.

    Raises:
        NmnExportError: The file is missing, not ONNX, not ours, or its external data is missing,
            too short or outside the file's folder.
    """
    if not path.is_file():
        raise NmnExportError(
            "The model must be an ONNX file", got=f"no file '{path}'", fix="Check the path."
        )
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise _not_ours(path, "a file that is not ONNX or is cut off") from error
    ours = any(p.key.startswith(METADATA_PREFIX) for p in model.metadata_props)
    if not ours and not any(node.domain == DOMAIN for node in model.graph.node):
        raise _not_ours(
            path, "an ONNX file from elsewhere" if model.graph.node else "no ONNX graph"
        )
    _check_external_data(model, path)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (onnx.checker.ValidationError, ValueError, OSError) as error:
        raise NmnExportError(
            "External data must be what ONNX allows",
            got=str(error),
            fix="Do not load this file unless you trust its author; export it again.",
        ) from error
    return model


def stamp(file: Path, entries: Mapping[str, str]) -> None:
    """Write where a file comes from into it; its external data stays where it is."""
    model = onnx.load(file, load_external_data=False)
    for key, value in entries.items():
        model.metadata_props.add(key=METADATA_PREFIX + key, value=value)
    onnx.save(model, file)


def _not_ours(path: Path, got: str) -> NmnExportError:
    return NmnExportError(
        "The model must be an ONNX file written by nmn-export",
        got=f"{got}: '{path}'",
        fix="Export it with `nmn-export export`.",
    )


def _check_external_data(model: onnx.ModelProto, path: Path) -> None:
    folder = path.parent.resolve()
    for tensor in filter(uses_external_data, model.graph.initializer):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        file = (folder / location).resolve()
        if not file.is_relative_to(folder):
            raise NmnExportError(
                "External data must lie in the folder of the model",
                got=f"'{location}' for '{tensor.name}'",
                fix="Do not load this file unless you trust its author; export it again.",
            )
        if not file.is_file():
            raise NmnExportError(
                "External data must lie beside the model",
                got=f"no file '{location}' in '{path.parent}'",
                fix="Copy it there together with the model.",
            )
        needed = math.ceil(math.prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth / 8)
        offset, length = entries.get("offset", "0"), entries.get("length", str(needed))
        if not offset.isdecimal() or length != str(needed):
            raise NmnExportError(
                "External data must have a place of the size of its tensor",
                got=f"offset {offset} and length {length} for {needed} bytes of '{tensor.name}'",
                fix="The file is damaged; export it again.",
            )
        end = int(offset) + needed
        if file.stat().st_size < end:
            raise NmnExportError(
                "External data must be as long as the model says",
                got=f"{file.stat().st_size} bytes in '{location}', {end} needed",
                fix="Copy it again; the last copy was cut off.",
            )
