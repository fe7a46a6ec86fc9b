"""The ONNX function of each op: its definition in standard ops, which the file carries."""

from collections.abc import Iterable, Sequence

import onnx_ir as ir
import torch
from onnx_ir import passes
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    IdentityEliminationPass,
    InlinePass,
    RemoveUnusedNodesPass,
)

from nmn_export.graph import attention, conv, conv_transpose, dense, yat
from nmn_export.graph.names import name_body

_OPS = (dense, conv, conv_transpose, attention)

DEFINITIONS = {op.DEFINITION.body.name: op.DEFINITION for op in _OPS}
"""What each op is in a graph, by its ONNX name."""

_COMMON_PIECES = (yat.Scales, yat.ColumnTerm, yat.Clamp, yat.Quotient)

_LARGEST = {
    ir.DataType.FLOAT16: torch.finfo(torch.float16).max,
    ir.DataType.BFLOAT16: torch.finfo(torch.bfloat16).max,
}

_CONSTANTS = {
    "value_float": ir.DataType.FLOAT,
    "value_floats": ir.DataType.FLOAT,
    "value_int": ir.DataType.INT64,
    "value_ints": ir.DataType.INT64,
}
"""Forms of a constant's value other than a tensor, as their attributes are called."""


def function(name: str, nodes: Sequence[ir.Node], opset: int) -> ir.Function:
    """Return the function of an op, in the variant that is fastest for the nodes of a model.

    Args:
        name: The op.
        nodes: All nodes of that op. If they are float16 or bfloat16, the body computes in float32
            and saturates. It does not saturate in float32, which would be one more pass.
        opset: Version of the standard ops in the model.
    """
    body = _link(name, nodes)
    # The ops of the bodies are the same in every opset that the exporter supports.
    body.opset_imports.clear()
    body.opset_imports[""] = opset
    x = nodes[0].inputs[0]
    assert x is not None
    if x.dtype in _LARGEST:
        _compute_in_float32(body, x.dtype)
    body.outputs[0].name = "Y"
    name_body(body)
    constants_as_tensors(body)
    for node in body:
        for value in node.outputs:  # onnxscript reads the annotation FLOAT as a scalar
            value.type = None
            value.shape = None
    return body


def _link(name: str, nodes: Sequence[ir.Node]) -> ir.Function:
    """Return the body of an op with the pieces that it calls inlined."""
    definition = DEFINITIONS[name]
    protos = [f.to_function_proto() for f in (definition.body, *_COMMON_PIECES)]
    for called, chosen in definition.pieces(nodes).items():
        protos.append(chosen.to_function_proto())
        protos[-1].name = called
    model = ir.Model(
        ir.Graph([], [], nodes=[], opset_imports={"": yat.OPSET}),
        ir_version=10,
        functions=[ir.serde.deserialize_function(proto) for proto in protos],
    )
    passes.Sequential(
        InlinePass(criteria=lambda f: f.domain == yat.PIECES.domain),
        CommonSubexpressionEliminationPass(),
        IdentityEliminationPass(),
        RemoveUnusedNodesPass(),
    )(model)
    return next(f for f in model.functions.values() if f.name == name)


def _compute_in_float32(body: ir.Function, dtype: ir.DataType) -> None:
    """Cast the inputs up; saturate and cast the output down."""
    for tensor in body.inputs:
        cast = ir.node("Cast", [tensor], {"to": ir.DataType.FLOAT})
        tensor.replace_all_uses_with(cast.outputs[0])
        cast.replace_input_with(0, tensor)
        cast.outputs[0].name = f"{tensor.name}_float32"
        body.graph.insert_before(body.graph[0], cast)
    limit = _LARGEST[dtype]
    smallest = ir.node("Constant", [], {"value_float": -limit})
    largest = ir.node("Constant", [], {"value_float": limit})
    smallest.outputs[0].name, largest.outputs[0].name = "smallest", "largest"
    saturate = ir.node("Clip", [*body.outputs, *smallest.outputs, *largest.outputs])
    saturate.outputs[0].name = "saturated"
    narrow = ir.node("Cast", saturate.outputs, {"to": dtype})
    body.extend([smallest, largest, saturate, narrow])
    body.outputs[0] = narrow.outputs[0]


def constants_as_tensors(nodes: Iterable[ir.Node]) -> None:
    """Write the value of every constant as a tensor, the one form that all readers know.

    A constant that is an attribute of its function has no value yet and keeps its form.
    """
    for node in nodes:
        if node.op_type != "Constant" or node.domain:
            continue
        (attribute,) = node.attributes.values()
        dtype = _CONSTANTS.get(attribute.name)
        if dtype is not None and not attribute.is_ref():
            node.attributes.clear()
            node.attributes["value"] = ir.AttrTensor(
                "value", ir.tensor(attribute.value, dtype=dtype, name=node.outputs[0].name)
            )
