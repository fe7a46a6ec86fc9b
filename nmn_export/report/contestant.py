"""A file in a benchmark: its inputs, its runtime and how it is launched."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.runtime.arrays import Arrays
from nmn_export.runtime.engine_file import need_gpu
from nmn_export.runtime.inputs import Input, inputs_of, is_floating
from nmn_export.runtime.onnx_runtime import OnnxRuntimeRunner, Provider
from nmn_export.runtime.runner import Runner
from nmn_export.runtime.tensorrt import TensorRtRunner, is_engine


@dataclass(frozen=True)
class Contestant:
    """A file that is loaded in its runtime.

    Attributes:
        name: The path as it was given.
        inputs: Its inputs.
        runner: Its runtime.
        launcher: Takes input tensors and returns a callable that runs the file on them in place.
        stream: The CUDA stream of its launches; `None` on a CPU, where a call is synchronous.
    """

    name: str
    inputs: Sequence[Input]
    runner: Runner
    launcher: Callable[[Mapping[str, Tensor]], Callable[[], object]]
    stream: "torch.cuda.Stream | None"


def open_contestant(
    path: Path, provider: Provider, cuda_graph: bool, plugin_library: Path | None
) -> Contestant:
    """Load a file.

    Args:
        path: Any ONNX file, or an engine.
        provider: ONNX Runtime's provider.
        cuda_graph: Replay an engine as a CUDA graph.
        plugin_library: Plugin library for engines; `None` is the one of this package.

    Raises:
        NmnExportError: The file is invalid, or its runtime is not installed.
    """
    if is_engine(path):
        engine = TensorRtRunner(path, cuda_graph=cuda_graph, plugin_library=plugin_library)
        return Contestant(str(path), engine.inputs, engine, engine.launcher, engine.stream)
    inputs = inputs_of(_read(path))
    if provider == "cuda":
        need_gpu("Provider 'cuda'")
    stream = torch.cuda.Stream() if provider == "cuda" else None  # type: ignore[no-untyped-call]
    runner = OnnxRuntimeRunner(path, provider, shared_threads=True, stream=stream)
    return Contestant(str(path), inputs, runner, runner.launcher, stream)


def check_alike(contestants: Sequence[Contestant]) -> None:
    """Check that all files have the same inputs. Precision and dynamic axes may differ.

    Raises:
        NmnExportError: A file has other inputs than the first.
    """
    first, *others = contestants
    expected = {value.name: value for value in first.inputs}
    for other in others:
        found = {value.name: value for value in other.inputs}
        if set(found) != set(expected):
            raise _unlike(first, other, ", ".join(expected), ", ".join(found))
        for name, value in expected.items():
            if not _same_kind(value, found[name]):
                raise _unlike(first, other, _describe(value), _describe(found[name]))


def in_precision_of_all(arrays: Arrays, contestants: Sequence[Contestant]) -> list[Arrays]:
    """Return the arrays for each contestant, in its dtypes and with the same values for all.

    Values are first rounded to the precision of every contestant, then converted to its dtype.

    Raises:
        NmnExportError: An array has integers for a floating-point input, or the reverse.
    """
    for value in contestants[0].inputs:
        dtype = arrays[value.name].dtype
        if is_floating(dtype) != value.floating:
            raise NmnExportError(
                f"Input '{value.name}' has dtype {value.dtype}",
                got=dtype,
                fix=f"Use astype('{value.dtype}').",
            )
    dtypes = [{value.name: value.dtype for value in c.inputs} for c in contestants]
    rounded = {}
    for name, array in arrays.items():
        for dtype in dict.fromkeys(found[name] for found in dtypes):
            array = array.astype(dtype)  # noqa: PLW2901 - rounding accumulates
        rounded[name] = array
    return [
        {name: rounded[name].astype(dtype) for name, dtype in found.items()} for found in dtypes
    ]


def _read(path: Path) -> onnx.ModelProto:
    """Read a graph without its external data, which only the runtime needs."""
    if not path.is_file():
        raise NmnExportError(
            "A benchmark takes files", got=f"no file '{path}'", fix="Check the path."
        )
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise _not_onnx(path) from error
    if not model.graph.node:
        raise _not_onnx(path)
    return model


def _not_onnx(path: Path) -> NmnExportError:
    return NmnExportError(
        "A benchmark takes ONNX files and .engine files of TensorRT",
        got=f"a file that is neither or is cut off: '{path}'",
        fix="Write them with `nmn-export export` and `nmn-export build`.",
    )


def _same_kind(one: Input, other: Input) -> bool:
    return (
        one.floating == other.floating
        and (one.floating or np.can_cast(one.dtype, other.dtype, "same_kind"))
        and len(one.shape) == len(other.shape)
        and all(
            a == b or isinstance(a, str) or isinstance(b, str)
            for a, b in zip(one.shape, other.shape, strict=True)
        )
    )


def _describe(value: Input) -> str:
    return f"{value.name} {'x'.join(map(str, value.shape)) or 'scalar'} {value.dtype}"


def _unlike(first: Contestant, other: Contestant, expected: str, found: str) -> NmnExportError:
    return NmnExportError(
        "All files of a benchmark must take the same inputs",
        got=f"{expected} in {first.name} and {found} in {other.name}",
        fix="Export them with the same input names and shapes.",
    )
