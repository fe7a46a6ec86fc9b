"""YatDense as an ONNX function."""

from onnxscript import BOOL, FLOAT, script
from onnxscript import opset18 as op
from onnxscript.values import Opset

from nmn_export.graph import schema
from nmn_export.graph.yat import ColumnTerm, Ratio, Scales
from nmn_export.ops import DOMAIN, PLUGIN_ATTRIBUTES, VERSION

_OPSET = Opset(DOMAIN, VERSION)


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
    """X [..., K], W [N, K], B [N] to [..., N]."""
    kappa, quarter, bound = Scales(epsilon=epsilon, alpha=alpha)
    one = op.Constant(value_float=1.0)
    guard = op.Constant(value_float=1e-8)
    # Not -1: of an empty batch, ONNX Runtime reduces no axis that is counted from the end.
    last = op.Constant(value_ints=[1])
    on_sphere = op.Cast(op.Constant(value_int=spherical), to=BOOL.dtype)

    # A runtime folds what concerns W; X is divided by one unless it belongs on the sphere.
    w_norm = op.Sqrt(op.ReduceSumSquare(W, last, keepdims=1))
    w = W / op.Where(on_sphere, w_norm + guard, one) * kappa
    b = B * kappa
    rows = op.Flatten(X, axis=-1)
    x_sq = op.ReduceSumSquare(rows, last, keepdims=1)
    x = rows / op.Where(on_sphere, op.Sqrt(x_sq) + guard, one)
    g = op.Gemm(x, w, b, transB=1)

    # On the sphere both norms count as one, those of zero vectors too.
    row = op.Where(on_sphere, one, x_sq) * quarter
    w_sq = op.Where(on_sphere, kappa * kappa, op.ReduceSumSquare(w, last, keepdims=0))
    y = Ratio(g, row, ColumnTerm(w_sq, b, quarter, bound), quarter, bound)
    return op.Reshape(y, op.Concat(op.Shape(X, end=-1), op.Shape(B), axis=0))


def translate(
    x: FLOAT, weight: FLOAT, bias: FLOAT | None, epsilon: float, alpha: float, spherical: bool
) -> FLOAT:
    """Turn `nmn::yat_dense` into a YatDense node, for PyTorch's exporter."""
    return schema.op("YatDense")(
        x,
        weight,
        schema.bias_or_zero(weight, bias),
        epsilon=epsilon,
        alpha=alpha,
        spherical=int(spherical),
        **PLUGIN_ATTRIBUTES,
    )
