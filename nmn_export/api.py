"""The verbs of the package: export, run, check and bench. `build` is in `nmn_export.engine`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn

from nmn_export.adapt import adapt
from nmn_export.errors import CheckError, NmnExportError
from nmn_export.graph.capture import capture
from nmn_export.graph.example import (
    DynamicShapes,
    ExampleInputs,
    check_model,
    parse_example,
    try_call,
)
from nmn_export.graph.file import load, save, staged, stamp
from nmn_export.graph.fold import fold
from nmn_export.report.bench import Benchmark, BenchRequest
from nmn_export.report.bench_process import measure_apart
from nmn_export.report.check import check_engine, check_file
from nmn_export.report.compare import Comparison, compare
from nmn_export.report.inspect import provenance
from nmn_export.report.origin import origin_of
from nmn_export.report.origin import parameter_hash as parameter_hash  # noqa: PLC0414 - public
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


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        path: The file.
        ops: Number of nodes of each ⵟ op in it; empty for an inlined file.
        parity: Errors of eager PyTorch and ONNX Runtime against float64 on the example inputs;
            empty if they were not compared.
        parity_note: Why they were not compared.
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
    dynamic_shapes: DynamicShapes = None,
    dtype: str | torch.dtype | None = None,
    opset: int | None = None,
    inline: bool = False,
    metadata: Mapping[str, str] | None = None,
    check: bool = True,
) -> Exported:
    """Write a model to an ONNX file of `ai.nmn` ops, each with its definition.

    Args:
        model: Any module. Layers of `nmn.torch` are adapted; the module itself is not changed.
        example_inputs: A tensor, tensors in the order of the arguments of `forward`, or tensors by
            the names of these arguments. A dynamic axis needs a size of at least 2.
        path: File to write. Weights beyond 1.8 GB go to `<path>.data` beside it.
        dynamic_shapes: Axes that vary at run time, by input: `{"x": {0: "batch"}}`. All forms of
            PyTorch are taken: one entry per input in a tuple or list, `torch.export.Dim` in place
            of a name, one entry per axis, or a list of axes.
        dtype: Convert the whole model to `"float32"`, `"float16"` or `"bfloat16"`. By default it
            is not converted.
        opset: Version of the standard ops, 18 to 23. The default is 18, or 22 with `dtype`
            bfloat16: opset 22 is the first with bfloat16 convolutions.
        inline: Write standard ops only: the definition of each op in place of its nodes.
        metadata: Further metadata of the file, strings by name.
        check: Run the file in ONNX Runtime on the example inputs before it is moved to `path`.

    Raises:
        NmnExportError: The model, its inputs or an option cannot be exported.
        CheckError: ONNX Runtime's result is too far from float64; nothing is written.
    """
    path = Path(path)
    torch_dtype = _parse_dtype(dtype)
    adapted = adapt(check_model(model))
    inputs, axes = parse_example(adapted, example_inputs, dynamic_shapes, torch_dtype)
    _check_metadata(metadata)
    folded = fold(adapted, torch_dtype)
    try_call(folded, inputs)
    if opset is None:
        opset = 22 if torch_dtype is torch.bfloat16 else 18
    graph = capture(folded, inputs, axes, opset, inline)
    ops: dict[str, int] = {}
    for node in graph.graph:
        if node.domain:
            ops[node.op_type] = ops.get(node.op_type, 0) + 1
    graph.metadata_props.update(metadata or {})
    with staged(path) as file:
        _save_valid_onnx(graph, file)
        parity, note = _compare_with_model(folded, inputs, file) if check else ([], "not asked for")
        stamp(file, origin_of(model, inputs, torch_dtype, parity, note))
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
        provider: `"cpu"` or `"cuda"` for ONNX Runtime. An unavailable provider is an error.
        plugin_library: Library of an engine's plugin layers; see `find_plugin_library`.
        cuda_graph: Replay an engine as a CUDA graph.

    Raises:
        NmnExportError: The file, the inputs or the provider cannot be used, or there is no GPU for
            an engine.
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
    """Compare a file in every runtime with float64: the whole model, and then each ⵟ layer.

    An engine is compared as a whole, because its layers are fused.

    Args:
        path: A file that `export` or `build` wrote.
        reference: The model it was exported from.
        inputs: Arrays by name of input for the whole model; drawn if `None`. Layers get inputs near
            their prototypes.
        provider: Where ONNX Runtime runs.
        plugin_library: Library of an engine's plugin layers; see `find_plugin_library`.

    Raises:
        NmnExportError: The file, the inputs, the reference or the provider cannot be used, or there
            is no GPU for an engine.
    """
    path = Path(path)
    if is_engine(path):
        runner = TensorRtRunner(path, plugin_library=plugin_library)
        return check_engine(runner, _in_file_dtype(reference, runner.origin), inputs)
    model = load(path)
    return list(
        check_file(model, path, _in_file_dtype(reference, provenance(model)), inputs, provider)
    )


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
    """Time files against each other, interleaved in one run, in a separate process.

    Args:
        files: ONNX files and engines that compute the same. Ratios and errors are relative to the
            first one.
        inputs: Arrays by name of input; drawn if `None`.
        provider: Where ONNX Runtime runs. By default on the GPU if one of the files is an engine.
        rounds: Number of measurements of each file.
        tolerance: Largest error of a file's outputs against those of the first file. Infinite for
            files that are meant to differ. By default the limit of the lowest precision among them.
        cuda_graph: Replay engines as CUDA graphs.
        plugin_library: Library of the engines' plugin layers; see `find_plugin_library`.
        on_round: Called after each round, for a progress bar.

    Raises:
        NmnExportError: A file, the inputs or an option cannot be used, or there is no GPU for an
            engine.
        CheckError: The outputs disagree; nothing is timed.
    """
    paths = tuple(map(Path, files))
    request = BenchRequest(paths, inputs, provider, rounds, tolerance, cuda_graph, plugin_library)
    return measure_apart(request, on_round)


def _in_file_dtype(reference: nn.Module, origin: Mapping[str, str]) -> nn.Module:
    """Return the model that a file was exported from, folded, in the dtype of the file."""
    return fold(adapt(check_model(reference)), DTYPES.get(origin.get("dtype", "")))


def _parse_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    if dtype is None or dtype in DTYPES:
        return DTYPES[str(dtype)] if dtype else None
    raise NmnExportError(
        f"dtype must be one of {', '.join(DTYPES)}",
        got=dtype,
        fix="TensorRT builds 8-bit engines from a model with Q/DQ nodes, not from a flag.",
    )


def _check_metadata(metadata: object) -> None:
    entries = metadata.items() if isinstance(metadata, Mapping) else [(metadata, None)]
    wrong = [name for name, value in entries if type(name) is not str or type(value) is not str]
    if metadata is not None and wrong:
        raise NmnExportError(
            "Metadata must be strings by name",
            got=f"another type for {', '.join(map(repr, wrong))}",
            fix="Convert names and values with str() or json.dumps().",
        )


def _compare_with_model(
    model: nn.Module, inputs: Mapping[str, Tensor], file: Path
) -> tuple[list[Comparison], str]:
    """Compare a file with the model it was exported from, or say why that is not possible here.

    Raises:
        CheckError: The error of the file is beyond its limit.
    """
    arrays = {name: to_numpy(t) for name, t in inputs.items()}
    try:
        runtime = OnnxRuntimeRunner(file)
        eager, truth = EagerRunner(model), TruthRunner(model)
        eager_result, result = compare("model", "example", arrays, eager, truth, [runtime])
    except NmnExportError as error:
        return [], str(error)
    if not eager_result.passed:
        return [], (
            "Eager PyTorch must compute the example inputs without overflow; got outputs that are "
            "NaN or infinite where those in float64 are finite. Use smaller example inputs."
        )
    if not result.passed:
        raise CheckError(
            f"{result.backend} must agree with float64 to {result.limit or 0:.1e}",
            got=f"an error of {result.error:.1e}; nothing was written",
            fix="Export with check=False (--no-check) and run `nmn-export check` on the file to "
            "find the layer.",
        )
    return [eager_result, result], ""


def _save_valid_onnx(graph: ir.Model, file: Path) -> None:
    try:
        save(graph, file)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise NmnExportError(
            "The result must be valid ONNX",
            got=str(error).splitlines()[0],
            fix="Try another opset: bfloat16 convolutions, for example, need 22.",
        ) from error
