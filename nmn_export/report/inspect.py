"""What a file holds: its ⵟ ops, their weights, and what they cost."""

import math
from dataclasses import dataclass

import onnx
from onnx import helper

from nmn_export.graph.file import METADATA_PREFIX
from nmn_export.ops import DOMAIN, OPS, PLUGIN_ATTRIBUTES

EPILOGUE_FLOPS = 6
"""Of an output element: add the norms, subtract, clamp, divide, multiply, and add the bias."""


@dataclass(frozen=True)
class OpReport:
    """One ⵟ op of a graph.

    Attributes:
        name: Path of the layer in the model.
        op: Name of the op.
        input_shape: Of X; a size that varies is a string.
        weight_shape: Of W.
        output_shape: Of Y.
        dtype: Of all of them.
        attributes: All but the plugin's.
        parameters: Elements of W and B.
        flops: Of one run: two for each tap of each output, two for each input element's square, and
            the epilogue's. Sizes that vary count as one.
        bytes: Of X, W, B and Y, each moved once. Sizes that vary count as one.
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
    """List the ⵟ ops of a model, weights included, in the order of its graph."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    values = {v.name: v for v in (*graph.input, *graph.value_info, *graph.output)}
    weights = {t.name: t for t in graph.initializer}
    reports = []
    for node in graph.node:
        if node.domain != DOMAIN:
            continue
        weight, bias = weights[node.input[1]], weights[node.input[2]]
        x, y = _shape(values.get(node.input[0])), _shape(values.get(node.output[0]))
        taps, parameters = math.prod(weight.dims[1:]), math.prod(weight.dims) + math.prod(bias.dims)
        inputs, outputs = _elements(x), _elements(y)
        dtype = helper.tensor_dtype_to_np_dtype(weight.data_type)
        reports.append(
            OpReport(
                name=node.name,
                op=node.op_type,
                input_shape=x,
                weight_shape=tuple(weight.dims),
                output_shape=y,
                dtype=dtype.name,
                attributes=_attributes(node),
                parameters=parameters,
                flops=outputs * (2 * taps + EPILOGUE_FLOPS) + 2 * inputs,
                bytes=dtype.itemsize * (inputs + parameters + outputs),
            )
        )
    return reports


def provenance(model: onnx.ModelProto) -> dict[str, str]:
    """Return where a file says it comes from, by key without our prefix."""
    return {
        p.key.removeprefix(METADATA_PREFIX): p.value
        for p in model.metadata_props
        if p.key.startswith(METADATA_PREFIX)
    }


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
