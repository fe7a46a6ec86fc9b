"""YatConvTranspose as an ONNX function."""

from collections.abc import Sequence

import onnx_ir as ir
from onnxscript import FLOAT, script
from onnxscript import opset18 as op
from onnxscript.values import OnnxFunction, Opset

from nmn_export.graph import schema
from nmn_export.graph import transposed_patches as patches
from nmn_export.graph.patches import Combine, shared_pieces
from nmn_export.graph.transposed_patches import FilterNorm, Interleaved, Products
from nmn_export.graph.yat import ColumnTerm, OpDefinition, Scales
from nmn_export.ops import DOMAIN, PLUGIN_ATTRIBUTES, VERSION

_OPSET = Opset(DOMAIN, VERSION)


@script(_OPSET, default_opset=op)
def YatConvTranspose(
    X: FLOAT,
    W: FLOAT,
    B: FLOAT,
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    output_padding: Sequence[int],
    epsilon: float = 1e-5,
    alpha: float = 1.0,
    group: int = 1,
    plugin_namespace: str = "ai.nmn",
    plugin_version: str = "1",
) -> FLOAT:
    """Compute Y [B, O, *S'] from X [B, C, *S], W [C, O/group, *K] and B [O]."""
    kappa, quarter, bound = Scales(epsilon=epsilon, alpha=alpha)
    w = W * kappa
    b = B * kappa
    column = ColumnTerm(FilterNorm(w, group=group), b, quarter, bound)
    g, row, columns = Products(
        X,
        w,
        b,
        column,
        quarter,
        kernel_shape=kernel_shape,
        strides=strides,
        pads=pads,
        dilations=dilations,
        output_padding=output_padding,
        group=group,
    )
    y = Combine(g, row, columns, W, quarter, bound, group=group)
    return Interleaved(y, B, strides=strides, pads=pads)


def pieces(nodes: Sequence[ir.Node]) -> dict[str, OnnxFunction]:
    """Return the fastest variant of each piece that is right for all nodes, by the piece's name."""
    strided = any(max(_ints(node, "strides")) > 1 for node in nodes)
    products, joined = patches.Products, patches.Whole
    if not strided or any(map(_is_strided_and_dilated, nodes)):
        products = patches.ConvolutionProducts
    elif all(map(_has_equal_phases, nodes)):
        products, joined = patches.PhaseProducts, patches.Interleaved
    return {
        **shared_pieces(nodes),
        **{piece.name: piece for piece in patches.PARTS},
        Products.name: products,
        patches.Spread.name: patches.Spread if strided else patches.NoSpread,
        Interleaved.name: joined,
    }


def _is_strided_and_dilated(node: ir.Node) -> bool:
    """Return whether TensorRT has no transposed convolution for a node."""
    return max(_ints(node, "strides")) > 1 and max(_ints(node, "dilations")) > 1


def _has_equal_phases(node: ir.Node) -> bool:
    """Return whether all phases of a node have equally many taps, and a convolution is faster.

    It is not if every phase has one tap, because blocks do not overlap then, nor over one axis.
    """
    kernel, strides = _ints(node, "kernel_shape"), _ints(node, "strides")
    divided = all(k % s == 0 for k, s in zip(kernel, strides, strict=True))
    plain = max(_ints(node, "dilations")) == 1 and not any(_ints(node, "output_padding"))
    return divided and plain and kernel != strides and len(kernel) > 1


def _ints(node: ir.Node, name: str) -> tuple[int, ...]:
    return tuple(node.attributes[name].as_ints())


def translate(
    x: FLOAT,
    weight: FLOAT,
    bias: FLOAT | None,
    epsilon: float,
    alpha: float,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    output_padding: Sequence[int],
    group: int,
) -> FLOAT:
    """Translate `nmn::yat_conv_transpose` to a node; PyTorch's exporter calls this."""
    return schema.op("YatConvTranspose")(
        x,
        weight,
        schema.bias_or_zero(weight, bias, axis=1, group=group),
        epsilon=epsilon,
        alpha=alpha,
        kernel_shape=list(weight.shape[2:]),
        strides=strides,
        pads=pads,
        dilations=dilations,
        output_padding=output_padding,
        group=group,
        **PLUGIN_ATTRIBUTES,
    )


DEFINITION = OpDefinition(YatConvTranspose, pieces, translate)
