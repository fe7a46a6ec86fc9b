"""The contents of a file: its ⵟ ops, their weights and their cost."""

from dataclasses import dataclass

import onnx
from onnx import helper

from nmn_export.engine.record import EngineRecord, ShapesRecord
from nmn_export.engine.tensorrt_api import PLUGIN_LAYER
from nmn_export.errors import NmnExportError
from nmn_export.graph.file import METADATA_PREFIX
from nmn_export.ops import DOMAIN, OPS, PLUGIN_ATTRIBUTES
from nmn_export.report.op_cost import Shape, op_cost
from nmn_export.report.single_layer import tensor_types


@dataclass(frozen=True)
class OpReport:
    """One ⵟ op of a graph.

    Attributes:
        name: Path of the layer in the model.
        op: Name of the op.
        input_shape: Shape of the first input, X or Q; a dynamic axis is a string.
        weight_shape: Shape of the second input, W or K.
        output_shape: Shape of Y.
        dtype: Dtype of inputs and output.
        attributes: Attributes, except those of the plugin.
        parameters: Number of elements of W and B.
        flops: FLOPs of one run, as `op_cost` counts them. A dynamic axis counts as size 1.
        bytes: Bytes of inputs and output, each moved once. A dynamic axis counts as size 1.
    """

    name: str
    op: str
    input_shape: Shape
    weight_shape: Shape
    output_shape: Shape
    dtype: str
    attributes: dict[str, float | int | list[int]]
    parameters: int
    flops: int
    bytes: int


def inspect_model(model: onnx.ModelProto) -> list[OpReport]:
    """List the ⵟ ops of a model in graph order."""
    graph = _infer_shapes(model)
    types = tensor_types(graph)
    reports = []
    for node in graph.node:
        if node.domain != DOMAIN:
            continue
        if node.op_type not in OPS:
            raise NmnExportError(
                f"A ⵟ op is {' or '.join(OPS)}",
                got=f"{node.op_type} '{node.name}'",
                fix="Export the file again.",
            )
        names = OPS[node.op_type].inputs
        shapes = {n: _shape(types.get(value)) for n, value in zip(names, node.input, strict=False)}
        y = _shape(types.get(node.output[0]))
        cost = op_cost(node, shapes, y)
        first, second, *_ = shapes.values()
        dtype = helper.tensor_dtype_to_np_dtype(types[node.input[1]].elem_type)
        reports.append(
            OpReport(
                name=node.name,
                op=node.op_type,
                input_shape=first,
                weight_shape=second,
                output_shape=y,
                dtype=dtype.name,
                attributes=_attributes(node),
                parameters=cost.parameters,
                flops=cost.flops,
                bytes=dtype.itemsize * cost.elements,
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


def _shape(tensor: onnx.TypeProto.Tensor | None) -> Shape:
    if tensor is None:
        return ()
    dims = tensor.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in dims)
