"""YatConv as an ONNX function."""

from collections.abc import Sequence

import onnx_ir as ir
from onnxscript import FLOAT, INT64, script
from onnxscript import opset18 as op
from onnxscript.values import OnnxFunction, Opset

from nmn_export.graph import schema
from nmn_export.graph.yat import PIECES, ColumnTerm, OpDefinition, Quotient, Scales
from nmn_export.ops import DOMAIN, PLUGIN_ATTRIBUTES, VERSION

_OPSET = Opset(DOMAIN, VERSION)


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
def PixelNorm(X: FLOAT, W: FLOAT, scale: FLOAT, group: int) -> FLOAT:
    """Sum the squares over the channels of each pixel, [B, C, *S] to [B, group, *S], times scale.

    This is a matrix product because ReduceSumSquare is slower in ONNX Runtime, which does not
    broadcast an empty batch: hence Expand.
    """
    one = op.Constant(value_ints=[1])
    groups = op.Reshape(op.Constant(value_int=group), one)
    per_group = op.Shape(W, start=1, end=2)
    size = op.Shape(X, start=2)
    pixels = Regroup(X, op.Concat(groups, per_group, op.ReduceProd(size), axis=0))
    row = op.Expand(scale, op.Concat(one, per_group, axis=0))
    rows = op.Expand(row, op.Concat(op.Shape(X, end=1), groups, one, one, axis=0))
    return Regroup(op.MatMul(rows, pixels * pixels), op.Concat(groups, size, axis=0))


@script(PIECES, default_opset=op)
def PatchNorm(
    X: FLOAT,
    W: FLOAT,
    quarter: FLOAT,
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
) -> FLOAT:
    """Return α/4 ‖patch‖² as [B, group, *S']: a box filter over the pixel norms of each group.

    A convolution of all channels with ones would cost as much as the product itself.
    """
    pixel_sq = PixelNorm(X, W, quarter, group=group)
    one = op.Constant(value_ints=[1])
    groups = op.Reshape(op.Constant(value_int=group), one)
    size = op.Concat(groups, one, op.Shape(W, start=2), axis=0)
    box = op.Expand(op.Constant(value_float=1.0), size)
    return op.Conv(pixel_sq, box, strides=strides, pads=pads, dilations=dilations, group=group)


@script(PIECES, default_opset=op)
def PooledPatchNorm(
    X: FLOAT,
    W: FLOAT,
    quarter: FLOAT,
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
) -> FLOAT:
    """Return the same where pooling is defined: no dilation, and less padding than the kernel.

    Pooling is faster: ONNX Runtime pads a convolution's one channel to 16 and reorders it twice.
    """
    taps = op.ReduceProd(op.Shape(W, start=2), keepdims=0)
    pixel_sq = PixelNorm(X, W, quarter * op.Cast(taps, to=FLOAT.dtype), group=group)
    return op.AveragePool(
        pixel_sq, kernel_shape=kernel_shape, strides=strides, pads=pads, count_include_pad=1
    )


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
    outputs = op.Concat(groups, op.Div(op.Shape(W, end=1), groups), axis=0)
    quotient = Quotient(
        Regroup(g, op.Concat(outputs, count, axis=0)),
        Regroup(row, op.Concat(groups, one, count, axis=0)),
        op.Reshape(column, op.Concat(outputs, one, axis=0)),
        quarter,
        bound,
    )
    return Regroup(quotient, op.Concat(op.Shape(W, end=1), size, axis=0)) * g


@script(PIECES, default_opset=op)
def CombineUngrouped(
    g: FLOAT, row: FLOAT, column: FLOAT, W: FLOAT, quarter: FLOAT, bound: FLOAT, group: int
) -> FLOAT:
    """Return the same for one group, whose norm broadcasts without a reshape."""
    ones = op.Expand(op.Constant(value_int=1), op.Shape(op.Shape(W, start=2)))
    column = op.Reshape(column, op.Concat(op.Shape(W, end=1), ones, axis=0))
    return Quotient(g, row, column, quarter, bound) * g


@script(_OPSET, default_opset=op)
def YatConv(
    X: FLOAT,
    W: FLOAT,
    B: FLOAT,
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    epsilon: float = 1e-5,
    alpha: float = 1.0,
    group: int = 1,
    plugin_namespace: str = "ai.nmn",
    plugin_version: str = "1",
) -> FLOAT:
    """Compute Y [B, O, *S'] from X [B, C, *S], W [O, C/group, *K] and B [O]."""
    kappa, quarter, bound = Scales(epsilon=epsilon, alpha=alpha)
    w = W * kappa
    b = B * kappa
    g = op.Conv(
        X,
        w,
        b,
        # ONNX can infer it from the weight. But TensorRT's parser does not resolve attributes of a
        # function. Without this one it would silently take 1 for all strides and dilations. With
        # it, the parser refuses the file.
        kernel_shape=kernel_shape,
        strides=strides,
        pads=pads,
        dilations=dilations,
        group=group,
    )
    row = PatchNorm(
        X,
        W,
        quarter,
        kernel_shape=kernel_shape,
        strides=strides,
        pads=pads,
        dilations=dilations,
        group=group,
    )
    w_sq = op.ReduceSumSquare(op.Flatten(w, axis=1), op.Constant(value_ints=[1]), keepdims=0)
    return Combine(g, row, ColumnTerm(w_sq, b, quarter, bound), W, quarter, bound, group=group)


def pieces(nodes: Sequence[ir.Node]) -> dict[str, OnnxFunction]:
    """Return the fastest variant of each piece that is right for all nodes, by the piece's name."""
    ungrouped = all(node.attributes["group"].as_int() == 1 for node in nodes)
    known = all(map(_has_known_size, nodes))
    return {
        Regroup.name: RegroupKnown if known else Regroup,
        PixelNorm.name: PixelNorm,
        PatchNorm.name: PooledPatchNorm if all(map(_can_pool, nodes)) else PatchNorm,
        Combine.name: CombineUngrouped if ungrouped else Combine,
    }


def _has_known_size(node: ir.Node) -> bool:
    """Return whether the spatial size of a node's input is fixed."""
    x = node.inputs[0]
    return x is not None and x.shape is not None and all(isinstance(n, int) for n in x.shape[2:])


def _can_pool(node: ir.Node) -> bool:
    """Return whether average pooling is defined for the geometry of a node."""
    kernel, pads, dilations = (
        node.attributes[name].as_ints() for name in ("kernel_shape", "pads", "dilations")
    )
    fits = all(pad < k for pad, k in zip(pads, (*kernel, *kernel), strict=True))
    return fits and all(d == 1 for d in dilations)


def translate(
    x: FLOAT,
    weight: FLOAT,
    bias: FLOAT | None,
    epsilon: float,
    alpha: float,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
) -> FLOAT:
    """Translate `nmn::yat_conv` to a YatConv node; PyTorch's exporter calls this."""
    return schema.op("YatConv")(
        x,
        weight,
        schema.bias_or_zero(weight, bias),
        epsilon=epsilon,
        alpha=alpha,
        kernel_shape=list(weight.shape[2:]),
        strides=strides,
        pads=pads,
        dilations=dilations,
        group=group,
        **PLUGIN_ATTRIBUTES,
    )


DEFINITION = OpDefinition(YatConv, pieces, translate)
