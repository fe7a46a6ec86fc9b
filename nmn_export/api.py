"""The verbs of the package: export, run, check, bench; build is in `nmn_export.engine`."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
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
from nmn_export.graph.example import ExampleInputs, named, size_name, try_on
from nmn_export.graph.file import EXAMPLE_SHAPES, METADATA_PREFIX, load, save, staged, stamp
from nmn_export.graph.fold import fold
from nmn_export.report.bench import Benchmark, BenchRequest
from nmn_export.report.bench_process import measure_apart
from nmn_export.report.check import check_engine, check_file
from nmn_export.report.compare import Comparison, compare
from nmn_export.report.inspect import provenance
from nmn_export.runtime.arrays import Arrays, to_numpy
from nmn_export.runtime.inputs import check_inputs
from nmn_export.runtime.onnx_runtime import OnnxRuntimeRunner, Provider
from nmn_export.runtime.pytorch import EagerRunner, TruthRunner
from nmn_export.runtime.tensorrt import TensorRtRunner, is_engine

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}

UNCHANGED = "unchanged"
"""In a file's metadata: the dtype of the model was not converted."""


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
    inputs = named(model, example_inputs, torch_dtype)
    folded = fold(adapt(model), torch_dtype)
    try_on(folded, inputs)
    axes: DynamicAxes = {
        name: {axis: size_name(name, axis, size) for axis, size in sizes.items()}
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
        stamp(
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


def run(
    path: str | Path,
    inputs: Arrays,
    provider: Provider = "cpu",
    *,
    plugin_library: Path | None = None,
    cuda_graph: bool = False,
) -> Arrays:
    """Run a file in ONNX Runtime, or an engine in TensorRT.

    Args:
        path: A file that `export` or `build` wrote.
        inputs: Arrays by name of input.
        provider: `"cpu"` or `"cuda"` for ONNX Runtime; if it cannot be had, that is an error.
        plugin_library: Library of an engine's plugin layers; see `find_plugin_library`.
        cuda_graph: Replay an engine as a CUDA graph.

    Raises:
        NmnExportError: The file, the inputs or the provider will not do, or an engine has no GPU.
    """
    path = Path(path)
    if is_engine(path):
        runner = TensorRtRunner(path, cuda_graph=cuda_graph, plugin_library=plugin_library)
        return runner.run(inputs)
    check_inputs(load(path), inputs)
    return OnnxRuntimeRunner(path, provider).run(inputs)


def check(
    path: str | Path,
    reference: nn.Module,
    inputs: Arrays | None = None,
    provider: Provider = "cpu",
    *,
    plugin_library: Path | None = None,
) -> list[Comparison]:
    """Compare a file in every runtime with float64 truth: as a whole, and each ⵟ layer by itself.

    An engine, whose layers are fused, is compared as a whole.

    Args:
        path: A file that `export` or `build` wrote.
        reference: The model it was exported from.
        inputs: Arrays by name of input; drawn if `None`. Layers get inputs near their prototypes.
        provider: Where ONNX Runtime runs.
        plugin_library: Library of an engine's plugin layers; see `find_plugin_library`.

    Raises:
        NmnExportError: The file, the inputs, the reference or the provider will not do, or an
            engine has no GPU.
    """
    path = Path(path)
    if is_engine(path):
        runner = TensorRtRunner(path, plugin_library=plugin_library)
        return check_engine(runner, _folded(reference, runner.origin), inputs)
    model = load(path)
    return list(check_file(model, path, _folded(reference, provenance(model)), inputs, provider))


def bench(
    files: Sequence[str | Path],
    inputs: Arrays | None = None,
    *,
    provider: Provider | None = None,
    rounds: int = 50,
    tolerance: float | None = None,
    cuda_graph: bool = True,
    plugin_library: Path | None = None,
    on_round: Callable[[], object] = lambda: None,
) -> Benchmark:
    """Time files against each other, in turn in one run, in a process of its own.

    Args:
        files: ONNX files and engines that compute the same; the others are measured by the first.
        inputs: Arrays by name of input; drawn if `None`.
        provider: Where ONNX Runtime runs; on the GPU by default if there is an engine.
        rounds: Turns of each file.
        tolerance: Largest error of a file's outputs against the first's, infinite for files that
            are meant to differ; by default the limit of the lowest precision among them.
        cuda_graph: Replay engines as CUDA graphs.
        plugin_library: Library of the engines' plugin layers; see `find_plugin_library`.
        on_round: Called after each round, for a progress bar.

    Raises:
        NmnExportError: A file, the inputs or an option will not do, or an engine has no GPU.
        CheckError: The outputs disagree; nothing is timed.
    """
    paths = tuple(map(Path, files))
    request = BenchRequest(paths, inputs, provider, rounds, tolerance, cuda_graph, plugin_library)
    return measure_apart(request, on_round)


def _folded(reference: nn.Module, origin: Mapping[str, str]) -> nn.Module:
    """Return the model a file was exported from, folded, in the dtype of the file."""
    return fold(adapt(reference), DTYPES.get(origin.get("dtype", "")))


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


def _parity(
    model: nn.Module, inputs: Mapping[str, Tensor], file: Path
) -> tuple[list[Comparison], str]:
    """Compare the file with the model, or say why that cannot be done here."""
    try:
        runtime = OnnxRuntimeRunner(file)
        arrays = {name: to_numpy(t) for name, t in inputs.items()}
        eager, truth = EagerRunner(model), TruthRunner(model)
        return compare("model", "example", arrays, eager, truth, [runtime]), ""
    except NmnExportError as error:
        return [], str(error)


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
