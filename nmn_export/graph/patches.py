"""Pieces that the bodies of both convolutions share: the norms of pixels, and the quotient."""

from collections.abc import Sequence

import onnx_ir as ir
from onnxscript import FLOAT, INT64, script
from onnxscript import opset18 as op
from onnxscript.values import OnnxFunction

from nmn_export.graph.yat import PIECES, Quotient


@script(PIECES, default_opset=op)
def Regroup(X: FLOAT, sizes: INT64) -> FLOAT:
    """Reshape X [B, ...] to [B, *sizes], where the sizes have no -1: B may be zero.

    ONNX Runtime writes -1 for a size that it does not know, unless `allowzero` is set.
    """
    return op.Reshape(X, op.Concat(op.Shape(X, end=1), sizes, axis=0), allowzero=1)


@script(PIECES, default_opset=op)
def RegroupKnown(X: FLOAT, sizes: INT64) -> FLOAT:
    """Return the same if the sizes are constants when the file is loaded."""
    return op.Reshape(X, op.Concat(op.Constant(value_ints=[0]), sizes, axis=0))


@script(PIECES, default_opset=op)
def PixelNorm(X: FLOAT, channels: INT64, scale: FLOAT, group: int) -> FLOAT:
    """Sum the squares over the channels of each pixel, [B, C, *S] to [B, group, *S], times scale.

    `channels` is [C / group]. This is a matrix product because ReduceSumSquare is slower in ONNX
    Runtime, which does not broadcast an empty batch: hence Expand.
    """
    one = op.Constant(value_ints=[1])
    groups = op.Reshape(op.Constant(value_int=group), one)
    size = op.Shape(X, start=2)
    pixels = Regroup(X, op.Concat(groups, channels, op.ReduceProd(size), axis=0))
    row = op.Expand(scale, op.Concat(one, channels, axis=0))
    rows = op.Expand(row, op.Concat(op.Shape(X, end=1), groups, one, one, axis=0))
    return Regroup(op.MatMul(rows, pixels * pixels), op.Concat(groups, size, axis=0))


@script(PIECES, default_opset=op)
def Combine(
    g: FLOAT, row: FLOAT, column: FLOAT, W: FLOAT, quarter: FLOAT, bound: FLOAT, group: int
) -> FLOAT:
    """Return Y from g [B, O, *S'], row [B, group, *S'] and column [O].

    The shape [B, group, O/group, S'] broadcasts the norm of a group over the group's outputs.
    """
    one = op.Constant(value_ints=[1])
    size = op.Shape(g, start=2)
    count = op.ReduceProd(size)
    groups = op.Reshape(op.Constant(value_int=group), one)
    outputs = op.Concat(groups, op.Div(op.Shape(column), groups), axis=0)
    quotient = Quotient(
        Regroup(g, op.Concat(outputs, count, axis=0)),
        Regroup(row, op.Concat(groups, one, count, axis=0)),
        op.Reshape(column, op.Concat(outputs, one, axis=0)),
        quarter,
        bound,
    )
    return Regroup(quotient, op.Concat(op.Shape(column), size, axis=0)) * g


@script(PIECES, default_opset=op)
def CombineUngrouped(
    g: FLOAT, row: FLOAT, column: FLOAT, W: FLOAT, quarter: FLOAT, bound: FLOAT, group: int
) -> FLOAT:
    """Return the same for one group, whose norm broadcasts without a reshape."""
    ones = op.Expand(op.Constant(value_int=1), op.Shape(op.Shape(W, start=2)))
    column = op.Reshape(column, op.Concat(op.Shape(column), ones, axis=0))
    return Quotient(g, row, column, quarter, bound) * g


def shared_pieces(nodes: Sequence[ir.Node]) -> dict[str, OnnxFunction]:
    """Return the fastest variants of these pieces that are right for all nodes of an op."""
    ungrouped = all(node.attributes["group"].as_int() == 1 for node in nodes)
    return {
        Regroup.name: RegroupKnown if all(map(_has_known_size, nodes)) else Regroup,
        PixelNorm.name: PixelNorm,
        Combine.name: CombineUngrouped if ungrouped else Combine,
    }


def _has_known_size(node: ir.Node) -> bool:
    """Return whether the spatial size of a node's input is fixed."""
    x = node.inputs[0]
    return x is not None and x.shape is not None and all(isinstance(n, int) for n in x.shape[2:])
