"""YatDense as an ONNX function."""

from collections.abc import Sequence

import onnx_ir as ir
from onnxscript import BOOL, FLOAT, script
from onnxscript import opset18 as op
from onnxscript.values import OnnxFunction, Opset

from nmn_export.graph import schema
from nmn_export.graph.yat import PIECES, ColumnTerm, OpDefinition, Quotient, Scales
from nmn_export.ops import DOMAIN, PLUGIN_ATTRIBUTES, VERSION

_OPSET = Opset(DOMAIN, VERSION)


@script(PIECES, default_opset=op)
def Operands(
    rows: FLOAT, W: FLOAT, kappa: FLOAT, quarter: FLOAT, spherical: int
) -> tuple[FLOAT, FLOAT, FLOAT, FLOAT]:
    """Return X [M, K], κW, α/4 ‖x‖² [M, 1] and ‖κw‖² [N], normalised if the op is spherical.

    A spherical op uses 1 for both norms, even for zero vectors.
    """
    one = op.Constant(value_float=1.0)
    guard = op.Constant(value_float=1e-8)
    last = op.Constant(value_ints=[1])  # with -1, ONNX Runtime does not reduce an empty batch
    on_sphere = op.Cast(op.Constant(value_int=spherical), to=BOOL.dtype)
    w_norm = op.Sqrt(op.ReduceSumSquare(W, last, keepdims=1))
    w = W / op.Where(on_sphere, w_norm + guard, one) * kappa
    x_sq = op.ReduceSumSquare(rows, last, keepdims=1)
    x = rows / op.Where(on_sphere, op.Sqrt(x_sq) + guard, one)
    row = op.Where(on_sphere, one, x_sq) * quarter
    w_sq = op.Where(on_sphere, kappa * kappa, op.ReduceSumSquare(w, last, keepdims=0))
    return x, w, row, w_sq


@script(PIECES, default_opset=op)
def PlainOperands(
    rows: FLOAT, W: FLOAT, kappa: FLOAT, quarter: FLOAT, spherical: int
) -> tuple[FLOAT, FLOAT, FLOAT, FLOAT]:
    """Like `Operands`, for models without spherical nodes. It saves the pass over X."""
    last = op.Constant(value_ints=[1])  # with -1, ONNX Runtime does not reduce an empty batch
    w = W * kappa
    row = op.ReduceSumSquare(rows, last, keepdims=1) * quarter
    return op.Identity(rows), w, row, op.ReduceSumSquare(w, last, keepdims=0)


@script(PIECES, default_opset=op)
def Rows(X: FLOAT) -> FLOAT:
    """Reshape [..., K] to [M, K]."""
    return op.Flatten(X, axis=-1)


@script(PIECES, default_opset=op)
def Unflatten(Y: FLOAT, X: FLOAT, B: FLOAT) -> FLOAT:
    """Reshape [M, N] to [..., N]."""
    return op.Reshape(Y, op.Concat(op.Shape(X, end=-1), op.Shape(B), axis=0), allowzero=1)


@script(PIECES, default_opset=op)
def MatrixRows(X: FLOAT) -> FLOAT:
    """Replace `Rows` if every input is a matrix already."""
    return op.Identity(X)


@script(PIECES, default_opset=op)
def MatrixUnflatten(Y: FLOAT, X: FLOAT, B: FLOAT) -> FLOAT:
    """Replace `Unflatten` if every input is a matrix already."""
    return op.Identity(Y)


@script(_OPSET, default_opset=op)
def YatDense(
    X: FLOAT,
    W: FLOAT,
    B: FLOAT,
    epsilon: float = 1e-5,
    alpha: float = 1.0,
    spherical: int = 0,
    plugin_namespace: str = "ai.nmn",
    plugin_version: str = "1",
) -> FLOAT:
    """Compute Y [..., N] from X [..., K], W [N, K] and B [N]."""
    kappa, quarter, bound = Scales(epsilon=epsilon, alpha=alpha)
    b = B * kappa
    x, w, row, w_sq = Operands(Rows(X), W, kappa, quarter, spherical=spherical)
    g = op.Gemm(x, w, b, transB=1)
    quotient = Quotient(g, row, ColumnTerm(w_sq, b, quarter, bound), quarter, bound)
    return Unflatten(quotient, X, B) * Unflatten(g, X, B)


def pieces(nodes: Sequence[ir.Node]) -> dict[str, OnnxFunction]:
    """Return the fastest variant of each piece that is right for all nodes, by the piece's name."""
    plain = not any(node.attributes["spherical"].as_int() for node in nodes)
    matrices = all((x := node.inputs[0]) and x.shape and len(x.shape) == 2 for node in nodes)
    return {
        Operands.name: PlainOperands if plain else Operands,
        Rows.name: MatrixRows if matrices else Rows,
        Unflatten.name: MatrixUnflatten if matrices else Unflatten,
    }


def translate(
    x: FLOAT, weight: FLOAT, bias: FLOAT | None, epsilon: float, alpha: float, spherical: bool
) -> FLOAT:
    """Translate `nmn::yat_dense` to a YatDense node; PyTorch's exporter calls this."""
    return schema.op("YatDense")(
        x,
        weight,
        schema.bias_or_zero(weight, bias),
        epsilon=epsilon,
        alpha=alpha,
        spherical=int(spherical),
        **PLUGIN_ATTRIBUTES,
    )


DEFINITION = OpDefinition(YatDense, pieces, translate)
