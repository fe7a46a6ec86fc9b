"""YatConv as an ONNX function."""

from collections.abc import Sequence

import onnx_ir as ir
from onnxscript import FLOAT, script
from onnxscript import opset18 as op
from onnxscript.values import OnnxFunction, Opset

from nmn_export.graph import schema
from nmn_export.graph.yat import PIECES, ColumnTerm, OpDefinition, Quotient, Scales
from nmn_export.ops import DOMAIN, PLUGIN_ATTRIBUTES, VERSION

_OPSET = Opset(DOMAIN, VERSION)


@script(PIECES, default_opset=op)
def PixelNorm(X: FLOAT, W: FLOAT, scale: FLOAT, group: int) -> FLOAT:
    """Sum the squares over the channels of each pixel, [B, C, *S] to [B, group, *S], times scale.

    As a matrix product, which ONNX Runtime does in one pass and ReduceSumSquare in a slow one.
    """
    zero = op.Constant(value_ints=[0])
    one = op.Constant(value_ints=[1])
    groups = op.Reshape(op.Constant(value_int=group), one)
    per_group = op.Shape(W, start=1, end=2)
    rest = op.Constant(value_ints=[-1])
    pixels = op.Reshape(X, op.Concat(zero, groups, per_group, rest, axis=0))
    row = op.Expand(scale, op.Concat(one, per_group, axis=0))
    size = op.Concat(zero, groups, op.Shape(X, start=2), axis=0)
    return op.Reshape(op.MatMul(row, pixels * pixels), size)


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
    """α/4 ‖patch‖² as [B, group, *S']: a box filter of what each pixel has, one channel a group.

    A convolution of all channels with ones would do as much work as that of the product itself.
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
    """The same where pooling is defined: without dilation, and with less padding than kernel.

    ONNX Runtime pads the one channel of a convolution to sixteen and reorders it twice.
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
    """Y from g [B, O, *S'], row [B, group, *S'] and column [O].

    As [B, group, O/group, S'], one norm a group broadcasts over the outputs of its group.
    """
    zero = op.Constant(value_ints=[0])
    one = op.Constant(value_ints=[1])
    rest = op.Constant(value_ints=[-1])
    groups = op.Reshape(op.Constant(value_int=group), one)
    outputs = op.Concat(groups, op.Div(op.Shape(W, end=1), groups), axis=0)
    quotient = Quotient(
        op.Reshape(g, op.Concat(zero, outputs, rest, axis=0)),
        op.Reshape(row, op.Concat(zero, groups, one, rest, axis=0)),
        op.Reshape(column, op.Concat(outputs, one, axis=0)),
        quarter,
        bound,
    )
    return op.Reshape(quotient, op.Shape(g)) * g


@script(PIECES, default_opset=op)
def CombineUngrouped(
    g: FLOAT, row: FLOAT, column: FLOAT, W: FLOAT, quarter: FLOAT, bound: FLOAT, group: int
) -> FLOAT:
    """The same if there is one group, whose norm broadcasts as it is."""
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
    """X [B, C, *S], W [O, C/group, *K], B [O] to [B, O, *S']."""
    kappa, quarter, bound = Scales(epsilon=epsilon, alpha=alpha)
    w = W * kappa
    b = B * kappa
    g = op.Conv(
        X,
        w,
        b,
        # The weight says the same. But TensorRT's parser does not look references to attributes of
        # a function up: it refuses this one, where it would take all strides and dilations for 1.
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
    """Return, by the name of a piece that the body calls, the fastest that suits all nodes."""
    ungrouped = all(node.attributes["group"].as_int() == 1 for node in nodes)
    return {
        PixelNorm.name: PixelNorm,
        PatchNorm.name: PooledPatchNorm if all(map(_can_pool, nodes)) else PatchNorm,
        Combine.name: CombineUngrouped if ungrouped else Combine,
    }


def _can_pool(node: ir.Node) -> bool:
    """Tell whether average pooling is defined for the geometry of a node."""
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
    """Turn `nmn::yat_conv` into a YatConv node, for PyTorch's exporter."""
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
