"""The contents of a file: its ⵟ ops, their weights and their cost."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import helper

from nmn_export.engine.record import EngineRecord, ShapesRecord
from nmn_export.engine.tensorrt_api import PLUGIN_LAYER
from nmn_export.errors import NmnExportError
from nmn_export.graph.file import METADATA_PREFIX
from nmn_export.ops import DOMAIN, OPS, PLUGIN_ATTRIBUTES

EPILOGUE_FLOPS = 6
"""FLOPs per output element: add norms, subtract, clamp, divide, multiply, add the bias."""


@dataclass(frozen=True)
class OpReport:
    """One ⵟ op of a graph.

    Attributes:
        name: Path of the layer in the model.
        op: Name of the op.
        input_shape: Shape of X; a dynamic axis is a string.
        weight_shape: Shape of W.
        output_shape: Shape of Y.
        dtype: Dtype of X, W, B and Y.
        attributes: Attributes, except those of the plugin.
        parameters: Number of elements of W and B.
        flops: FLOPs of one run: two per tap of each output element, two per input element for its
            square, and those of the epilogue. In a transposed convolution, an input element has
            the taps. A dynamic axis counts as size 1.
        bytes: Bytes of X, W, B and Y, each moved once. A dynamic axis counts as size 1.
    """

    name: str
    op: str
    input_shape: tuple[int | str, ...]
    weight_shape: tuple[int, ...]
    output_shape: tuple[int | str, ...]
    dtype: str
    attributes: dict[str, float | int | list[int]]
    parameters: int
    flops: int
    bytes: int


def inspect_model(model: onnx.ModelProto) -> list[OpReport]:
    """List the ⵟ ops of a model in graph order."""
    graph = _infer_shapes(model)
    values = {v.name: v for v in (*graph.input, *graph.value_info, *graph.output)}
    weights = {t.name: t for t in graph.initializer}
    reports = []
    for node in graph.node:
        if node.domain != DOMAIN:
            continue
        weight, bias, data_type = _parameters(node, weights, values)
        x, y = _shape(values.get(node.input[0])), _shape(values.get(node.output[0]))
        taps, parameters = math.prod(weight[1:]), math.prod(weight) + math.prod(bias)
        inputs, outputs = _elements(x), _elements(y)
        multiplied = inputs if node.op_type == "YatConvTranspose" else outputs
        dtype = helper.tensor_dtype_to_np_dtype(data_type)
        reports.append(
            OpReport(
                name=node.name,
                op=node.op_type,
                input_shape=x,
                weight_shape=weight,
                output_shape=y,
                dtype=dtype.name,
                attributes=_attributes(node),
                parameters=parameters,
                flops=2 * multiplied * taps + EPILOGUE_FLOPS * outputs + 2 * inputs,
                bytes=dtype.itemsize * (inputs + parameters + outputs),
            )
        )
    return reports


def _infer_shapes(model: onnx.ModelProto) -> onnx.GraphProto:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise NmnExportError(
            "The shapes in a file must be consistent",
            got=str(error).splitlines()[0],
            fix="Export it again.",
        ) from error


def _parameters(
    node: onnx.NodeProto,
    weights: Mapping[str, onnx.TensorProto],
    values: Mapping[str, onnx.ValueInfoProto],
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Return the shapes of W and B of a ⵟ node, constant or computed, and the dtype of W."""
    shapes = [
        tuple(weights[name].dims) if name in weights else _shape(values.get(name))
        for name in node.input[1:]
    ]
    fixed = [tuple(d for d in shape if isinstance(d, int)) for shape in shapes]
    if node.op_type not in OPS or len(shapes) != 2 or fixed != shapes or () in fixed:
        raise NmnExportError(
            f"A ⵟ op is {' or '.join(OPS)} of an input, weights and a bias, both of known shape",
            got=f"{node.op_type} '{node.name}' of {', '.join(node.input) or 'nothing'}",
            fix="Export the file again.",
        )
    name = node.input[1]
    typed = weights[name].data_type if name in weights else values[name].type.tensor_type.elem_type
    return fixed[0], fixed[1], typed


def provenance(model: onnx.ModelProto) -> dict[str, str]:
    """Return the export metadata of a file, by key without the prefix."""
    return {
        p.key.removeprefix(METADATA_PREFIX): p.value
        for p in model.metadata_props
        if p.key.startswith(METADATA_PREFIX)
    }


def engine_facts(record: EngineRecord) -> list[tuple[str, str]]:
    """Return the contents of an engine's record for display.

    Returns:
        A name and a value for each fact, in display order.
    """
    plugin = record.plugin
    layers = [layer.name for layer in record.layers if layer.type == PLUGIN_LAYER]
    in_plugin = ", ".join(name for name in layers if name not in plugin.others)
    facts = [
        ("engine", f"{record.engine.file}, {record.engine.bytes:,} bytes, as it was built"),
        ("sha256", record.engine.sha256),
        ("model", f"{record.model.file}, sha256 {record.model.sha256}"),
        (
            "built with",
            f"{record.tensorrt_package} {record.tensorrt}, nmn_export {record.nmn_export}",
        ),
        ("runs on", _capabilities(record)),
        ("float32 products", "TF32 allowed" if record.tf32 else "no TF32"),
        ("ⵟ ops in the plugin", f"{plugin.layers}{f': {in_plugin}' if in_plugin else ''}"),
        ("ⵟ ops decomposed", str(plugin.decomposed)),
        *(("", f"{name}: {why}") for name, why in plugin.reasons.items()),
    ]
    if plugin.others:
        facts.append(("other plugin layers", ", ".join(plugin.others)))
    if plugin.library is not None:
        place = "in the engine" if plugin.embedded else "needed next to the engine"
        facts.append(("plugin library", f"{plugin.library.file} {plugin.version}, {place}"))
    for tensor in record.inputs:
        bounds = record.profile.get(tensor.name)
        shapes = "" if bounds is None else f", {_range(bounds)}"
        facts.append(("input", f"{tensor.name} {tensor.dtype} {_sizes(tensor.shape)}{shapes}"))
    for tensor in record.outputs:
        facts.append(("output", f"{tensor.name} {tensor.dtype} {_sizes(tensor.shape)}"))
    counts = ", ".join(f"{n} {kind}" for kind, n in sorted(record.layer_counts.items()))
    return [*facts, ("layers", counts)]


def _capabilities(record: EngineRecord) -> str:
    if record.compute_capabilities:
        return f"compute capability {', '.join(record.compute_capabilities)}"
    return "the GPU model it was built on"


def _range(shapes: ShapesRecord) -> str:
    low, opt, high = (_sizes(sizes) for sizes in (shapes.min, shapes.opt, shapes.max))
    return f"{low} to {high}, tuned for {opt}"


def _sizes(shape: list[int]) -> str:
    return "x".join("?" if size < 0 else str(size) for size in shape) or "scalar"


def _attributes(node: onnx.NodeProto) -> dict[str, float | int | list[int]]:
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    names = [name for name in OPS[node.op_type].attributes if name not in PLUGIN_ATTRIBUTES]
    return {name: _plain(found[name]) for name in names if name in found}


def _plain(value: object) -> float | int | list[int]:
    return value if isinstance(value, float | int) else list(value)  # type: ignore[call-overload]


def _shape(value: onnx.ValueInfoProto | None) -> tuple[int | str, ...]:
    if value is None:
        return ()
    dims = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in dims)


def _elements(shape: tuple[int | str, ...]) -> int:
    return math.prod(d for d in shape if isinstance(d, int))
