"""The three verbs of the package: export, run, check."""

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata as distributions
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn

from nmn_export.adapt import adapt
from nmn_export.errors import CheckError, NmnExportError
from nmn_export.graph.capture import DynamicAxes, capture
from nmn_export.graph.file import METADATA_PREFIX, load, save, staged
from nmn_export.graph.fold import fold
from nmn_export.report.check import check_file
from nmn_export.report.compare import Comparison, compare
from nmn_export.report.inspect import provenance
from nmn_export.runtime.arrays import Arrays, to_numpy
from nmn_export.runtime.inputs import EXAMPLE_SHAPES, check_inputs
from nmn_export.runtime.onnx_runtime import OnnxRuntimeRunner, Provider
from nmn_export.runtime.pytorch import EagerRunner, TruthRunner

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}

UNCHANGED = "unchanged"
"""In a file's metadata: the dtype of the model was not converted."""

ExampleInputs = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        path: The file.
        ops: How many nodes of each ⵟ op are in it; none after inlining.
        parity: Eager PyTorch and ONNX Runtime against float64 truth on the example inputs; empty
            if that was not or could not be done.
        parity_note: Why not.
    """

    path: Path
    ops: dict[str, int]
    parity: list[Comparison]
    parity_note: str


def export(
    model: nn.Module,
    example_inputs: ExampleInputs,
    path: str | Path,
    *,
    dynamic_shapes: Mapping[str, Mapping[int, object]] | None = None,
    dtype: str | torch.dtype | None = None,
    opset: int | None = None,
    inline: bool = False,
    metadata: Mapping[str, str] | None = None,
    check: bool = True,
) -> Exported:
    """Write a model to an ONNX file of `ai.nmn` ops, each with its definition.

    Args:
        model: Any module. Layers of `nmn.torch` are adapted; the module itself is not changed.
        example_inputs: A tensor, tensors in the order of the arguments, or tensors by name in
            that order. A dynamic axis needs a size of at least 2.
        path: File to write; weights beyond 1.8 GB go to `<path>.data` beside it.
        dynamic_shapes: Axes that vary at run time, by input: `{"x": {0: "batch"}}`. A
            `torch.export.Dim` may stand for the name of its size.
        dtype: `"float32"`, `"float16"` or `"bfloat16"`, to which the whole model is converted;
            as it is by default.
        opset: Version of the standard ops, 18 to 23; by default 18, or 22 in bfloat16, for that is
            the first whose convolutions take it.
        inline: Write standard ops only, the definitions in the place of the ops.
        metadata: Goes into the file as it is, beside where the file comes from.
        check: Run the file in ONNX Runtime on the example inputs before it is put in place.

    Raises:
        NmnExportError: The model, its inputs or an option cannot be exported.
        CheckError: ONNX Runtime's result is too far from float64 truth; nothing is written.
    """
    path = Path(path)
    torch_dtype = _dtype(dtype)
    inputs = _named(model, example_inputs, torch_dtype)
    folded = fold(adapt(model), torch_dtype)
    _try(folded, inputs)
    axes: DynamicAxes = {
        name: {axis: _size_name(name, axis, size) for axis, size in sizes.items()}
        for name, sizes in (dynamic_shapes or {}).items()
    }
    if opset is None:
        opset = 22 if torch_dtype is torch.bfloat16 else 18
    graph = capture(folded, inputs, axes, opset, inline)
    ops: dict[str, int] = {}
    for node in graph.graph:
        if node.domain:
            ops[node.op_type] = ops.get(node.op_type, 0) + 1
    graph.metadata_props.update(metadata or {})
    with staged(path) as file:
        _save_valid(graph, file)
        parity, note = _parity(folded, inputs, file) if check else ([], "not asked for")
        for result in parity:
            if not result.passed:
                raise CheckError(
                    f"{result.backend} must agree with float64 to {result.limit or 0:.1e}",
                    got=f"an error of {result.error:.1e}; nothing was written",
                    fix="Export with check=False (--no-check) and run `nmn-export check` on the "
                    "file to find the layer.",
                )
        _stamp(
            file,
            {
                **_versions(),
                EXAMPLE_SHAPES.removeprefix(METADATA_PREFIX): json.dumps(
                    {name: list(t.shape) for name, t in inputs.items()}
                ),
                "source": f"{type(model).__module__}.{type(model).__qualname__}",
                "parameters_sha256": parameter_hash(model),
                "dtype": str(torch_dtype).removeprefix("torch.") if torch_dtype else UNCHANGED,
                "parity": json.dumps(
                    {result.backend: result.error for result in parity} or {"not checked": note}
                ),
            },
        )
    return Exported(path, ops, parity, note)


def run(path: str | Path, inputs: Arrays, provider: Provider = "cpu") -> Arrays:
    """Run a file in ONNX Runtime.

    Args:
        path: A file that `export` wrote.
        inputs: Arrays by name of input.
        provider: `"cpu"` or `"cuda"`; if it cannot be had, that is an error.

    Raises:
        NmnExportError: The file, the inputs or the provider will not do.
    """
    path = Path(path)
    check_inputs(load(path), inputs)
    return OnnxRuntimeRunner(path, provider).run(inputs)


def check(
    path: str | Path,
    reference: nn.Module,
    inputs: Arrays | None = None,
    provider: Provider = "cpu",
) -> list[Comparison]:
    """Compare a file in every runtime with float64 truth: as a whole, and each ⵟ layer by itself.

    Args:
        path: A file that `export` wrote.
        reference: The model it was exported from.
        inputs: Arrays by name of input; drawn if `None`. Layers get inputs near their prototypes.
        provider: Where ONNX Runtime runs.

    Raises:
        NmnExportError: The file, the inputs, the reference or the provider will not do.
    """
    path = Path(path)
    model = load(path)
    return list(check_file(model, path, reference_for(model, reference), inputs, provider))


def reference_for(model: onnx.ModelProto, reference: nn.Module) -> nn.Module:
    """Return the model a file was exported from, folded, in the dtype of the file."""
    dtype = provenance(model).get("dtype")
    return fold(adapt(reference), DTYPES.get(dtype or ""))


def parameter_hash(model: nn.Module) -> str:
    """Return the SHA-256 of names, dtypes, shapes and values of parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, Tensor):
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
            digest.update(to_numpy(tensor).tobytes())
    return digest.hexdigest()


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    if dtype is None or dtype in DTYPES:
        return DTYPES[str(dtype)] if dtype else None
    raise NmnExportError(
        f"dtype must be one of {', '.join(DTYPES)}",
        got=dtype,
        fix="TensorRT builds 8-bit engines from a model with Q/DQ nodes, not from a flag.",
    )


def _named(model: nn.Module, inputs: ExampleInputs, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Return the example inputs by name, and in the dtype of the export."""
    if isinstance(inputs, Tensor):
        inputs = (inputs,)
    if not isinstance(inputs, Mapping):
        arguments = list(inspect.signature(model.forward).parameters)
        names = (
            arguments if len(arguments) >= len(inputs) else [f"x{i}" for i in range(len(inputs))]
        )
        inputs = dict(zip(names, inputs, strict=False))
    return {
        name: t.to(dtype) if dtype is not None and t.is_floating_point() else t
        for name, t in inputs.items()
    }


def _size_name(name: str, axis: int, size: object) -> str:
    """Return the name of a size: a string, that of a `Dim`, or one made up for `Dim.DYNAMIC`."""
    return size if isinstance(size, str) else str(getattr(size, "__name__", f"{name}_{axis}"))


def _try(model: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    """Call the model once, so that inputs it does not take are not a matter of the exporter's."""
    try:
        with torch.inference_mode():
            model(*inputs.values())
    except NmnExportError:
        raise
    except Exception as error:
        given = ", ".join(f"{name} {tuple(t.shape)}" for name, t in inputs.items())
        raise NmnExportError(
            "The model must run on the example inputs",
            got=f"{given}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            fix="Give inputs of the shapes and dtypes it takes (--input NAME:2x3x224x224).",
        ) from error


def _parity(
    model: nn.Module, inputs: Mapping[str, Tensor], file: Path
) -> tuple[list[Comparison], str]:
    """Compare the file with the model, or say why that cannot be done here."""
    try:
        runtime = OnnxRuntimeRunner(file)
        arrays = {name: to_numpy(t) for name, t in inputs.items()}
        runtime.run(arrays)
    except NmnExportError as error:
        return [], str(error)
    eager, truth = EagerRunner(model), TruthRunner(model)
    return compare("model", "example", arrays, eager, truth, [runtime]), ""


def _save_valid(graph: ir.Model, file: Path) -> None:
    try:
        save(graph, file)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise NmnExportError(
            "The result must be valid ONNX",
            got=str(error).splitlines()[0],
            fix="Another opset may take it: bfloat16 convolutions, for instance, need 22.",
        ) from error


def _versions() -> dict[str, str]:
    packages = ("nmn-export", "torch", "onnx", "onnxscript", "onnx-ir")
    return {f"version.{package}": distributions.version(package) for package in packages}


def _stamp(file: Path, entries: Mapping[str, str]) -> None:
    """Write where a file comes from into it; its external data stays where it is."""
    model = onnx.load(file, load_external_data=False)
    for key, value in entries.items():
        model.metadata_props.add(key=METADATA_PREFIX + key, value=value)
    onnx.save(model, file)
