"""YatAttention as an ONNX function.

Whatever has a size of Lq × Lk is a pass over memory, and each pass costs about a tenth of the two
matrix products. The ⵟ-product needs five, four of which ONNX Runtime computes in place. Masks are
combined in their own small shape, so that they add one pass, like that of plain attention.
"""

from collections.abc import Sequence

import onnx_ir as ir
from onnxscript import BOOL, FLOAT, script
from onnxscript import opset18 as op
from onnxscript.values import OnnxFunction, Opset

from nmn_export.graph import schema
from nmn_export.graph.yat import PIECES, Clamp, OpDefinition, Scales
from nmn_export.ops import DOMAIN, PLUGIN_ATTRIBUTES, VERSION

_OPSET = Opset(DOMAIN, VERSION)


@script(PIECES, default_opset=op)
def RowNorm(X: FLOAT, factor: FLOAT) -> FLOAT:
    """Return ‖x‖² times a factor, [B, G, L, 1].

    This is a matrix product because ReduceSumSquare is slower in ONNX Runtime.
    """
    size = op.Concat(op.Shape(X, start=3), op.Constant(value_ints=[1]), axis=0)
    return op.MatMul(X * X, op.Expand(factor, size))


@script(PIECES, default_opset=op)
def Operands(
    Q: FLOAT, K: FLOAT, quarter: FLOAT, bound: FLOAT, epsilon: float, spherical: int
) -> tuple[FLOAT, FLOAT, FLOAT, FLOAT]:
    """Return q, k, c/4 ‖q‖² as [B, G, Lq, 1] and c/4 (‖k‖² + ε) as [B, G, 1, Lk] for a scale c.

    A spherical op normalises q and k, and uses 1 for both norms, even for zero vectors.
    """
    one = op.Constant(value_float=1.0)
    guard = op.Constant(value_float=epsilon)
    on_sphere = op.Cast(op.Constant(value_int=spherical), to=BOOL.dtype)
    q_sq = RowNorm(Q, one)
    k_sq = RowNorm(K, one)
    q = Q / op.Where(on_sphere, op.Sqrt(q_sq + guard), one)
    k = K / op.Where(on_sphere, op.Sqrt(k_sq + guard), one)
    row = op.Where(on_sphere, one, q_sq) * quarter
    column = op.Transpose(op.Where(on_sphere, one, k_sq) * quarter, perm=[0, 1, 3, 2])
    return q, k, row, column + bound


@script(PIECES, default_opset=op)
def PlainOperands(
    Q: FLOAT, K: FLOAT, quarter: FLOAT, bound: FLOAT, epsilon: float, spherical: int
) -> tuple[FLOAT, FLOAT, FLOAT, FLOAT]:
    """Like `Operands`, for models without spherical nodes."""
    column = op.Transpose(RowNorm(K, quarter), perm=[0, 1, 3, 2])
    return op.Identity(Q), op.Identity(K), RowNorm(Q, quarter), column + bound


@script(PIECES, default_opset=op)
def FoldHeads(X: FLOAT, K: FLOAT) -> FLOAT:
    """Reshape [B, H, L, C] to [B, G, H/G · L, C]: the queries of one key head, below each other."""
    keep = op.Constant(value_ints=[0])
    groups = op.Shape(K, start=1, end=2)
    rows = op.Shape(X, start=1, end=2) / groups * op.Shape(X, start=2, end=3)
    return op.Reshape(X, op.Concat(keep, groups, rows, keep, axis=0))


@script(PIECES, default_opset=op)
def UnfoldHeads(X: FLOAT, Q: FLOAT) -> FLOAT:
    """Reshape [B, G, H/G · L, C] to [B, H, L, C]."""
    keep = op.Constant(value_ints=[0])
    return op.Reshape(X, op.Concat(keep, op.Shape(Q, start=1, end=3), keep, axis=0))


@script(PIECES, default_opset=op)
def SameHeads(X: FLOAT, other: FLOAT) -> FLOAT:
    """Replace `FoldHeads` and `UnfoldHeads` if all nodes have as many key heads as heads."""
    return op.Identity(X)


@script(PIECES, default_opset=op)
def Added(M: FLOAT, Q: FLOAT, K: FLOAT, is_causal: int) -> FLOAT:
    """Return what is added to the scores: the mask, and −∞ for keys that come later if causal.

    Query i sees key j if j ≤ i + Lk − Lq.
    """
    one = op.Constant(value_int=1)
    keys = op.Squeeze(op.Shape(K, start=2, end=3))
    place = op.Range(keys - op.Squeeze(op.Shape(Q, start=2, end=3)), keys, one)
    key = op.Range(op.Constant(value_int=0), keys, one)
    causal = op.Cast(op.Constant(value_int=is_causal), to=BOOL.dtype)
    later = op.And(causal, key > op.Unsqueeze(place, op.Constant(value_ints=[1])))
    hidden = op.Constant(value_float=float("-inf"))
    return M + op.Where(later, hidden, op.Constant(value_float=0.0))


@script(PIECES, default_opset=op)
def OnlyMask(M: FLOAT, Q: FLOAT, K: FLOAT, is_causal: int) -> FLOAT:
    """Like `Added`, for models without causal nodes."""
    return op.Identity(M)


@script(PIECES, default_opset=op)
def Hide(scores: FLOAT, M: FLOAT, Q: FLOAT, K: FLOAT, is_causal: int) -> tuple[FLOAT, BOOL]:
    """Return the masked scores, and which queries see a key.

    A query that sees none keeps its scores, because the softmax of −∞ alone is NaN.
    """
    added = Added(M, Q, K, is_causal=is_causal)
    hidden = op.Constant(value_float=float("-inf"))
    sees = op.ReduceMax(added, op.Constant(value_ints=[3]), keepdims=1) > hidden
    return scores + op.Where(sees, added, op.Constant(value_float=0.0)), sees


@script(PIECES, default_opset=op)
def HideNothing(scores: FLOAT, M: FLOAT, Q: FLOAT, K: FLOAT, is_causal: int) -> tuple[FLOAT, FLOAT]:
    """Like `Hide`, for models without masks and causal nodes."""
    return op.Identity(scores), op.Identity(M)


@script(PIECES, default_opset=op)
def Blank(Y: FLOAT, sees: BOOL) -> FLOAT:
    """Return zeros for queries that see no key."""
    return op.Where(sees, Y, op.Constant(value_float=0.0))


@script(PIECES, default_opset=op)
def BlankNothing(Y: FLOAT, sees: FLOAT) -> FLOAT:
    """Like `Blank`, for models without masks and causal nodes."""
    return op.Identity(Y)


@script(PIECES, default_opset=op)
def Softmax(scores: FLOAT, power: float, guard: float) -> FLOAT:
    """Return the weights of the values if no node of the model has a power."""
    return op.Softmax(scores, axis=-1)


@script(PIECES, default_opset=op)
def Softermax(scores: FLOAT, power: float, guard: float) -> FLOAT:
    """Return the same if all nodes have a power: z^p / (guard + Σ z^p)."""
    hidden = scores == op.Constant(value_float=float("-inf"))
    zero = op.Constant(value_float=0.0)
    powers = op.Where(hidden, zero, op.Pow(scores, op.Constant(value_float=power)))
    total = op.ReduceSum(powers, op.Constant(value_ints=[3]), keepdims=1)
    return powers / (total + op.Constant(value_float=guard))


@script(PIECES, default_opset=op)
def Weights(scores: FLOAT, power: float, guard: float) -> FLOAT:
    """Return the weights of the values, by a power or by softmax."""
    has_power = op.Constant(value_float=power) > op.Constant(value_float=0.0)
    softermax = Softermax(scores, power=power, guard=guard)
    return op.Where(has_power, softermax, Softmax(scores, power=power, guard=guard))


@script(_OPSET, default_opset=op)
def YatAttention(
    Q: FLOAT,
    K: FLOAT,
    V: FLOAT,
    M: FLOAT,
    epsilon: float = 1e-5,
    scale: float = 1.0,
    is_causal: int = 0,
    spherical: int = 0,
    power: float = 0.0,
    guard: float = 1e-12,
    plugin_namespace: str = "ai.nmn",
    plugin_version: str = "1",
) -> FLOAT:
    """Compute Y [B, H, Lq, E] from Q [B, H, Lq, D], K [B, G, Lk, D], V [B, G, Lk, E] and M."""
    kappa, quarter, bound = Scales(epsilon=epsilon, alpha=scale)
    q, k, row, column = Operands(
        FoldHeads(Q, K), K, quarter, bound, epsilon=epsilon, spherical=spherical
    )
    g = op.MatMul(q * kappa, op.Transpose(k, perm=[0, 1, 3, 2]))
    # Where g² overflows, it does in PyTorch, too.
    scores = g * g / Clamp(row - g + column, quarter, bound)
    scores, sees = Hide(UnfoldHeads(scores, Q), M, Q, K, is_causal=is_causal)
    weights = FoldHeads(Weights(scores, power=power, guard=guard), K)
    return Blank(UnfoldHeads(op.MatMul(weights, V), Q), sees)


def pieces(nodes: Sequence[ir.Node]) -> dict[str, OnnxFunction]:
    """Return the fastest variant of each piece that is right for all nodes, by the piece's name."""
    spherical = any(node.attributes["spherical"].as_int() for node in nodes)
    causal = any(node.attributes["is_causal"].as_int() for node in nodes)
    hides = causal or any(map(_has_mask, nodes))
    powers = {node.attributes["power"].as_float() > 0 for node in nodes}
    grouped = not all(map(_has_same_heads, nodes))
    return {
        **{piece.name: piece for piece in (RowNorm, Softmax, Softermax)},
        Operands.name: Operands if spherical else PlainOperands,
        FoldHeads.name: FoldHeads if grouped else SameHeads,
        UnfoldHeads.name: UnfoldHeads if grouped else SameHeads,
        Added.name: Added if causal else OnlyMask,
        Hide.name: Hide if hides else HideNothing,
        Blank.name: Blank if hides else BlankNothing,
        Weights.name: Weights if len(powers) > 1 else Softermax if True in powers else Softmax,
    }


def _has_mask(node: ir.Node) -> bool:
    """Return whether anything but one zero is added to the scores of a node."""
    mask = node.inputs[3]
    value = None if mask is None else mask.const_value
    return value is None or value.size != 1 or bool(value.numpy().any())


def _has_same_heads(node: ir.Node) -> bool:
    """Return whether a node is known to have as many key heads as heads."""
    heads = [value.shape[1] for value in node.inputs[:2] if value and value.shape]
    return len(heads) == 2 and isinstance(heads[0], int) and heads[0] == heads[1]


def translate(
    q: FLOAT,
    k: FLOAT,
    v: FLOAT,
    mask: FLOAT | None,
    epsilon: float,
    scale: float,
    is_causal: bool,
    spherical: bool,
    power: float,
    guard: float,
) -> FLOAT:
    """Translate `nmn::yat_attention` to a YatAttention node; PyTorch's exporter calls this."""
    return schema.op("YatAttention")(
        q,
        k,
        v,
        _full_mask(q, mask),
        epsilon=epsilon,
        scale=scale,
        is_causal=int(is_causal),
        spherical=int(spherical),
        power=power,
        guard=guard,
        **PLUGIN_ATTRIBUTES,
    )


def _full_mask(q: FLOAT, mask: FLOAT | None) -> FLOAT:
    """Return the mask of a node, with four axes, from that of the torch op."""
    if mask is None:
        return op.CastLike(op.Expand(0.0, [1, 1, 1, 1]), q)
    missing = 4 - len(mask.shape)
    return op.Unsqueeze(mask, list(range(missing))) if missing else op.Identity(mask)


DEFINITION = OpDefinition(YatAttention, pieces, translate)
