"""YatConv as an ONNX function."""

from collections.abc import Sequence

import onnx_ir as ir
from onnxscript import FLOAT, script
from onnxscript import opset18 as op
from onnxscript.values import OnnxFunction, Opset

from nmn_export.graph import schema
from nmn_export.graph.patches import Combine, PixelNorm, shared_pieces
from nmn_export.graph.yat import PIECES, ColumnTerm, OpDefinition, Scales
from nmn_export.ops import DOMAIN, PLUGIN_ATTRIBUTES, VERSION

_OPSET = Opset(DOMAIN, VERSION)


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
    pixel_sq = PixelNorm(X, op.Shape(W, start=1, end=2), quarter, group=group)
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
    scale = quarter * op.Cast(taps, to=FLOAT.dtype)
    pixel_sq = PixelNorm(X, op.Shape(W, start=1, end=2), scale, group=group)
    return op.AveragePool(
        pixel_sq, kernel_shape=kernel_shape, strides=strides, pads=pads, count_include_pad=1
    )


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
    pools = all(map(_can_pool, nodes))
    return shared_pieces(nodes) | {PatchNorm.name: PooledPatchNorm if pools else PatchNorm}


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
