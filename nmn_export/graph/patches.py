"""Pieces that the bodies of both convolutions share: the norms of pixels, and the quotient."""

from onnxscript import FLOAT, INT64, script
from onnxscript import opset18 as op

from nmn_export.graph.yat import PIECES, Quotient


@script(PIECES, default_opset=op)
def PixelNorm(X: FLOAT, channels: INT64, scale: FLOAT, group: int) -> FLOAT:
    """Sum the squares over the channels of each pixel, [B, C, *S] to [B, group, *S], times scale.

    `channels` is [C / group]. This is a matrix product because ReduceSumSquare is slower in ONNX
    Runtime. Its left factor has the batch axis of X, because ONNX Runtime does not broadcast a
    matrix to an empty batch. All sizes are computed, because it refuses a size of -1 there.
    """
    one = op.Constant(value_ints=[1])
    groups = op.Reshape(op.Constant(value_int=group), one)
    batch = op.Shape(X, end=1)
    size = op.Shape(X, start=2)
    count = op.ReduceProd(size, keepdims=1)
    pixels = op.Reshape(X, op.Concat(batch, groups, channels, count, axis=0))
    row = op.Expand(scale, op.Concat(batch, groups, one, channels, axis=0))
    return op.Reshape(op.MatMul(row, pixels * pixels), op.Concat(batch, groups, size, axis=0))


@script(PIECES, default_opset=op)
def Combine(g: FLOAT, row: FLOAT, column: FLOAT, quarter: FLOAT, bound: FLOAT, group: int) -> FLOAT:
    """Return Y from g [B, O, *S'], row [B, group, *S'] and column [O].

    The shape [B, group, O/group, S'] broadcasts the norm of a group over the group's outputs. B is
    not 0, as a Reshape writes an unchanged size: ONNX Runtime would write -1 for S' then.
    """
    batch = op.Shape(g, end=1)
    one = op.Constant(value_ints=[1])
    groups = op.Reshape(op.Constant(value_int=group), one)
    outputs = op.Concat(groups, op.Div(op.Shape(column), groups), axis=0)
    count = op.ReduceProd(op.Shape(g, start=2), keepdims=1)
    quotient = Quotient(
        op.Reshape(g, op.Concat(batch, outputs, count, axis=0)),
        op.Reshape(row, op.Concat(batch, groups, one, count, axis=0)),
        op.Reshape(column, op.Concat(outputs, one, axis=0)),
        quarter,
        bound,
    )
    return op.Reshape(quotient, op.Shape(g)) * g


@script(PIECES, default_opset=op)
def CombineUngrouped(
    g: FLOAT, row: FLOAT, column: FLOAT, quarter: FLOAT, bound: FLOAT, group: int
) -> FLOAT:
    """Return the same for one group, whose norm broadcasts without a reshape."""
    ones = op.Expand(op.Constant(value_int=1), op.Shape(op.Shape(g, start=2)))
    column = op.Reshape(column, op.Concat(op.Shape(column), ones, axis=0))
    return Quotient(g, row, column, quarter, bound) * g
