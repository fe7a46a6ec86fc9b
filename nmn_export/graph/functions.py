"""The definition of each op as a function of the model that uses it."""

from collections.abc import Sequence

import onnx_ir as ir
import torch
from onnx_ir import passes
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    IdentityEliminationPass,
    InlinePass,
    RemoveUnusedNodesPass,
)

from nmn_export.graph import conv, dense, yat
from nmn_export.graph.inline import write_constants_as_tensors

_BODIES = {"YatDense": dense.YatDense, "YatConv": conv.YatConv}
_CHOICES = {"YatDense": dense.choices, "YatConv": conv.choices}
_PIECES = (yat.Scales, yat.ColumnTerm, yat.Quotient, conv.PixelNorm)
_LARGEST = {
    ir.DataType.FLOAT16: torch.finfo(torch.float16).max,
    ir.DataType.BFLOAT16: torch.finfo(torch.bfloat16).max,
}


def function(name: str, nodes: Sequence[ir.Node], opset: int) -> ir.Function:
    """Return the body of an op, in the form that is fastest for the nodes of a model.

    Args:
        name: The op.
        nodes: All nodes of it. In the half precisions the body computes in float32 and saturates;
            in float32 it must not, for that is one more pass over the output.
        opset: Version of the standard ops, which has to be that of the model.
    """
    body = _link(name, nodes)
    # What the bodies use means the same in every opset that the exporter takes.
    body.opset_imports.clear()
    body.opset_imports[""] = opset
    x = nodes[0].inputs[0]
    assert x is not None
    if x.dtype in _LARGEST:
        _compute_in_float32(body, x.dtype)
    body.outputs[0].name = "Y"
    write_constants_as_tensors(body)
    for node in body:
        node.name = node.outputs[0].name
        for value in node.outputs:  # onnxscript takes the annotation FLOAT for a scalar's type
            value.type = None
            value.shape = None
    return body


def _link(name: str, nodes: Sequence[ir.Node]) -> ir.Function:
    """Put the pieces into the body that calls them."""
    protos = [f.to_function_proto() for f in (_BODIES[name], *_PIECES)]
    for called, chosen in _CHOICES[name](nodes).items():
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
