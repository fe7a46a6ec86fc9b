"""ONNX files: written completely or not at all, read only if this package wrote them."""

import errno
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx.external_data_helper import uses_external_data

from nmn_export.errors import NmnExportError
from nmn_export.graph.staging import StagingFolder
from nmn_export.ops import DOMAIN

EXTERNAL_DATA_THRESHOLD = 1_800_000_000
"""Size of the weights, in bytes, above which they go to a second file. Protobuf's limit is 2 GB."""

METADATA_PREFIX = "nmn_export."
"""Prefix of the metadata keys that record the origin of a file."""

EXAMPLE_SHAPES = METADATA_PREFIX + "example_shapes"
"""Metadata key of the input shapes at export, which are known to work."""

LARGEST_SIZE = 2**31 - 1
"""Largest size of an axis."""


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None}
"""Error numbers of a write to a full disk. NumPy raises an OSError without a number."""


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to. If no error occurs, the file is then renamed to `path`.

    Other files in the same folder, such as the model's external data, are moved beside `path`
    before it. If `path` is a link, the files go to the folder of its target, and the link stays.

    Raises:
        NmnExportError: The folder of `path` does not exist, is not writable or is full, or `path`
            is not a regular file.
    """
    _check_replaceable(path)
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    try:
        folder = StagingFolder(target.parent)
    except OSError as error:
        raise NmnExportError(
            "The output folder must exist and be writable",
            got=f"'{target.parent}' ({error.strerror})",
            fix="Create it or choose another.",
        ) from error
    try:
        with folder as files:
            staging = files / target.name
            yield staging
            for file in sorted(files.iterdir(), key=lambda f: f == staging):
                file.replace(target.parent / file.name)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise NmnExportError(
            "The output folder must have room for the file",
            got=f"'{target.parent}' ({error.strerror or error})",
            fix="Make room, or choose another.",
        ) from error


def _check_replaceable(path: Path) -> None:
    """Refuse a path that is not a regular file. Renaming would destroy a device, for instance."""
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
        return  # nothing is there, or the staging folder reports the error
    if stat.S_ISDIR(mode):
        raise NmnExportError(
            "The output must be a file", got=f"the folder '{path}'", fix="Name a file in it."
        )
    if not stat.S_ISREG(mode):
        raise NmnExportError(
            "The output must be a file",
            got=f"the device, pipe or socket '{path}'",
            fix="Name a regular file.",
        )


def save(model: ir.Model, path: Path) -> None:
    """Write a model to `path`, and its weights to `<path>.data` if they are too large for one file.

    Raises:
        onnx.checker.ValidationError: The model is not valid ONNX.
    """
    weights = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value)
    external = f"{path.name}.data" if weights > EXTERNAL_DATA_THRESHOLD else None
    ir.save(model, path, external_data=external)
    onnx.checker.check_model(str(path), full_check=True)


def load(path: Path) -> onnx.ModelProto:
    """Read a file that this package wrote, including its external data.

    Raises:
        NmnExportError: The file is missing, not ONNX or from elsewhere, or its external data is
            missing, too short or outside the file's folder.
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
            "External data must follow the rules of ONNX",
            got=str(error),
            fix="Do not load this file unless you trust its author; export it again.",
        ) from error
    return model


def example_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return the input shapes that a model was exported with, by input name; none if not stored.

    Raises:
        NmnExportError: The metadata is not JSON, or not a list of sizes for each input.
    """
    stored = next((p.value for p in model.metadata_props if p.key == EXAMPLE_SHAPES), "{}")
    try:
        shapes: dict[str, list[int]] = json.loads(stored)
        sizes = [size for shape in shapes.values() for size in shape]
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise invalid_example_shapes(f"'{stored[:80]}'") from error
    if not all(type(size) is int and 0 <= size <= LARGEST_SIZE for size in sizes):
        raise invalid_example_shapes(f"'{stored[:80]}'")
    return shapes


def invalid_example_shapes(got: str) -> NmnExportError:
    """Return the error for example shapes that do not fit the model."""
    return NmnExportError(
        f"The metadata '{EXAMPLE_SHAPES}' must be a shape for each input",
        got=got,
        fix="The file was changed; export it again.",
    )


def stamp(file: Path, entries: Mapping[str, str]) -> None:
    """Add metadata on the origin of a file. Its external data is not rewritten."""
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
                "The offset and length of external data must match its tensor",
                got=f"offset {offset} and length {length} for {needed} bytes of '{tensor.name}'",
                fix="The file is damaged; export it again.",
            )
        end = int(offset) + needed
        if file.stat().st_size < end:
            raise NmnExportError(
                "External data must be as long as the model requires",
                got=f"{file.stat().st_size} bytes in '{location}', {end} needed",
                fix="Copy it again; the last copy was cut off.",
            )
