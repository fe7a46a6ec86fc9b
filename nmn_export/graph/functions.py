"""The definition of each op as a function of the model that uses it."""

import onnx_ir as ir
from onnx_ir.passes import Sequential
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    InlinePass,
    RemoveUnusedNodesPass,
)

from nmn_export.graph import conv, dense, yat

_BODIES = {"YatDense": dense.YatDense, "YatConv": conv.YatConv}
_PIECES = (yat.Scales, yat.ColumnTerm, yat.Ratio)
_LARGEST = {ir.DataType.FLOAT16: 65504.0, ir.DataType.BFLOAT16: 3.3895313892515355e38}


def function(name: str, dtype: ir.DataType, opset: int) -> ir.Function:
    """Return the body of an op.

    Args:
        name: The op.
        dtype: Dtype of its tensors. For the half precisions the body computes in float32 and
            saturates; in float32 it must not, for that is one more pass over the output.
        opset: Version of the standard ops, which has to be that of the model.
    """
    protos = [piece.to_function_proto() for piece in (_BODIES[name], *_PIECES)]
    model = ir.Model(
        ir.Graph([], [], nodes=[], opset_imports={"": yat.OPSET}),
        ir_version=10,
        functions=[ir.serde.deserialize_function(proto) for proto in protos],
    )
    Sequential(
        InlinePass(criteria=lambda f: f.domain == yat.PIECES.domain),
        CommonSubexpressionEliminationPass(),
        RemoveUnusedNodesPass(),
    )(model)
    body = next(f for f in model.functions.values() if f.name == name)
    # What the bodies use means the same in every opset that the exporter takes.
    body.opset_imports.clear()
    body.opset_imports[""] = opset
    if dtype in _LARGEST:
        _compute_in_float32(body, dtype)
    body.outputs[0].name = "Y"
    for node in body:
        node.name = node.outputs[0].name
        for value in node.outputs:  # onnxscript takes the annotation FLOAT for a scalar's type
            value.type = None
            value.shape = None
    return body


def _compute_in_float32(body: ir.Function, dtype: ir.DataType) -> None:
    """Cast the inputs up; saturate and cast the output down."""
    for tensor in body.inputs:
        cast = ir.node("Cast", [tensor], {"to": ir.DataType.FLOAT}, name=f"widen_{tensor.name}")
        tensor.replace_all_uses_with(cast.outputs[0])
        cast.replace_input_with(0, tensor)
        cast.outputs[0].name = f"{tensor.name}_float32"
        body.graph.insert_before(body.graph[0], cast)
    limit = _LARGEST[dtype]
    wide = body.outputs[0]
    bounds = [
        ir.node("Constant", [], {"value_float": value}, name=name)
        for name, value in (("smallest", -limit), ("largest", limit))
    ]
    clip = ir.node("Clip", [wide, *(b.outputs[0] for b in bounds)], name="saturate")
    narrow = ir.node("Cast", [clip.outputs[0]], {"to": dtype}, name="narrow")
    for node in (*bounds, clip, narrow):
        node.outputs[0].name = f"{node.name}_output"
        body.append(node)
    body.outputs[0] = narrow.outputs[0]
