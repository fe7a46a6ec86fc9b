"""YatConv as an ONNX function."""

from collections.abc import Sequence

from onnxscript import FLOAT, script
from onnxscript import opset18 as op
from onnxscript.values import Opset

from nmn_export.graph import schema
from nmn_export.graph.yat import ColumnTerm, Ratio, Scales
from nmn_export.ops import DOMAIN, PLUGIN_ATTRIBUTES, VERSION

_OPSET = Opset(DOMAIN, VERSION)


@script(_OPSET, default_opset=op)
def YatConv(
    X: FLOAT,
    W: FLOAT,
    B: FLOAT,
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
    g = op.Conv(X, w, b, strides=strides, pads=pads, dilations=dilations, group=group)

    zero = op.Constant(value_ints=[0])
    one = op.Constant(value_ints=[1])
    rest = op.Constant(value_ints=[-1])
    groups = op.Reshape(op.Constant(value_int=group), one)
    per_group = op.Shape(W, start=1, end=2)
    outputs = op.Concat(groups, op.Div(op.Shape(W, end=1), groups), axis=0)

    # ‖patch‖²: a matrix product sums the squares over the channels of each pixel, and a box filter
    # sums what is left, one channel a group. A convolution of all channels would do K times that.
    pixels = op.Reshape(X, op.Concat(zero, groups, per_group, rest, axis=0))
    ones = op.Expand(op.Constant(value_float=1.0), op.Concat(one, per_group, axis=0))
    pixel_sq = op.Reshape(
        op.MatMul(ones, pixels * pixels), op.Concat(zero, groups, op.Shape(X, start=2), axis=0)
    )
    box = op.Expand(quarter, op.Concat(groups, one, op.Shape(W, start=2), axis=0))
    patch_sq = op.Conv(pixel_sq, box, strides=strides, pads=pads, dilations=dilations, group=group)

    # As [B, group, O/group, S'], one norm a group broadcasts over the outputs of its group.
    row = op.Reshape(patch_sq, op.Concat(zero, groups, one, rest, axis=0))
    w_sq = op.ReduceSumSquare(op.Flatten(w, axis=1), one, keepdims=0)
    column = op.Reshape(ColumnTerm(w_sq, b, quarter, bound), op.Concat(outputs, one, axis=0))
    g_split = op.Reshape(g, op.Concat(zero, outputs, rest, axis=0))
    return op.Reshape(Ratio(g_split, row, column, quarter, bound), op.Shape(g))


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
        strides=strides,
        pads=pads,
        dilations=dilations,
        group=group,
        **PLUGIN_ATTRIBUTES,
    )
