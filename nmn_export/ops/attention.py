"""YatAttention: attention whose scores are ⵟ-products of queries and keys."""

import torch
from torch import Tensor

from nmn_export.ops.autograd import register_autograd
from nmn_export.ops.spec import OpSpec
from nmn_export.ops.yat import Scalar, cast, compute_dtype, saturate, yat


def yat_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    epsilon: Scalar = 1e-5,
    scale: Scalar = 1.0,
    is_causal: bool = False,
    spherical: bool = False,
    power: float = 0.0,
    guard: Scalar = 1e-12,
) -> Tensor:
    """Return weights · v, differentiable in every tensor.

    The weights are made from the scores z = scale ⟨q, k⟩² / (‖q − k‖² + ε) + mask.

    Args:
        q: Queries, [B, H, Lq, D], of any floating dtype. float16 and bfloat16 are computed in
            float32, and the result saturates.
        k: Keys, [B, G, Lk, D], cast to the dtype of `q`. G divides H: each of the G key heads
            serves H / G query heads in a row.
        v: Values, [B, G, Lk, E], cast to the dtype of `q`.
        mask: Added to the scores; broadcasts to [B, H, Lq, Lk]. A key with −∞ is not attended to.
        epsilon: ε > 0.
        scale: A multiplier of the ⵟ-product, often α / √D.
        is_causal: Whether query i attends to keys up to i + Lk − Lq only: the last query sees all
            keys.
        spherical: Divide queries and keys by √(‖·‖² + ε) first. The distance is then
            max(2 − 2⟨q, k⟩, 0), also for zero vectors.
        power: 0 for weights softmax(z). A positive number p stands for z^p / (guard + Σ z^p).
        guard: Added to the sum of powers.

    Returns:
        [B, H, Lq, E] in the dtype of `q`. A query that attends to no key gives zeros.
    """
    weights = yat_attention_weights(q, k, mask, epsilon, scale, is_causal, spherical, power, guard)
    return weighted_values(weights, v, q.dtype)


def yat_attention_weights(
    q: Tensor,
    k: Tensor,
    mask: Tensor | None = None,
    epsilon: Scalar = 1e-5,
    scale: Scalar = 1.0,
    is_causal: bool = False,
    spherical: bool = False,
    power: float = 0.0,
    guard: Scalar = 1e-12,
) -> Tensor:
    """Return the weights of `yat_attention`, [B, H, Lq, Lk]: float32 for half-precision queries."""
    wide = compute_dtype(q.dtype)
    q, k = cast(q, wide), _per_head(cast(cast(k, q.dtype), wide), q)
    if spherical:
        q, k = (t / (t.square().sum(-1, keepdim=True) + epsilon).sqrt() for t in (q, k))
    dot = q @ k.mT
    if spherical:
        scores = yat(dot, dot, 1.0, 1.0, epsilon, scale)
    else:
        q_sq = q.square().sum(-1, keepdim=True)
        k_sq = k.square().sum(-1).unsqueeze(-2)
        scores = yat(dot, dot, q_sq, k_sq, epsilon, scale)
    return _weights(scores, mask, is_causal, power, guard)


def weighted_values(weights: Tensor, v: Tensor, dtype: torch.dtype) -> Tensor:
    """Return weights [B, H, Lq, Lk] times values [B, G, Lk, E], saturated, in `dtype`."""
    return saturate(weights @ _per_head(cast(cast(v, dtype), weights.dtype), weights), dtype)


def _per_head(t: Tensor, other: Tensor) -> Tensor:
    """Return keys or values [B, G, Lk, …] as [B, H, Lk, …], repeated for the heads of `other`."""
    groups = other.shape[1] // t.shape[1]
    return t.repeat_interleave(groups, 1) if groups > 1 else t


def _weights(
    scores: Tensor, mask: Tensor | None, is_causal: bool, power: float, guard: Scalar
) -> Tensor:
    """Return the weights of the values, from scores [B, H, Lq, Lk]."""
    if mask is not None:
        scores = scores + mask.to(scores.dtype)
    if is_causal:
        queries, keys = scores.shape[-2:]
        later = torch.ones(queries, keys, dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(later.triu(keys - queries + 1), float("-inf"))
    hidden = scores == float("-inf")
    if power:
        powers = scores.masked_fill(hidden, 0.0).pow(power).masked_fill(hidden, 0.0)
        return powers / (powers.sum(-1, keepdim=True) + guard)
    # Without this, the softmax of a query that attends to no key would be NaN, and its gradient.
    scores = scores.masked_fill(hidden.all(-1, keepdim=True), 0.0)
    return scores.softmax(-1).masked_fill(hidden, 0.0)


def exact_yat_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    epsilon: float,
    scale: float,
    is_causal: bool,
    spherical: bool,
    power: float,
    guard: float,
    *,
    displacement: float = 0.0,
) -> Tensor:
    """`yat_attention` in float64 with ‖q − k‖² as a sum of squared differences.

    `displacement`, a multiple of ‖q‖² + ‖k‖², is added to ‖q − k‖² as rounding would.
    """
    q, k, v = q.double(), _per_head(k.double(), q), _per_head(v.double(), q)
    if spherical:
        q, k = (t / (t.square().sum(-1, keepdim=True) + epsilon).sqrt() for t in (q, k))
    dot = q @ k.mT
    if spherical:
        distance = (2 - 2 * dot).clamp_min(0)
    else:
        distance = torch.cdist(q, k, compute_mode="donot_use_mm_for_euclid_dist").square()
    if displacement:
        q_sq, k_sq = q.square().sum(-1, keepdim=True), k.square().sum(-1).unsqueeze(-2)
        norms = 2.0 if spherical else q_sq + k_sq
        distance = (distance + displacement * norms).clamp_min(0)
    scores = scale * dot.square() / (distance + epsilon)
    return _weights(scores, mask, is_causal, power, guard) @ v


@torch.library.custom_op("nmn::yat_attention", mutates_args=())
def _yat_attention_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    epsilon: float,
    scale: float,
    is_causal: bool,
    spherical: bool,
    power: float,
    guard: float,
) -> Tensor:
    return yat_attention(q, k, v, mask, epsilon, scale, is_causal, spherical, power, guard)


@_yat_attention_op.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    epsilon: float,
    scale: float,
    is_causal: bool,
    spherical: bool,
    power: float,
    guard: float,
) -> Tensor:
    del mask, epsilon, scale, is_causal, spherical, power, guard
    # The op cannot have a dynamic number of features. Without this check, tracing would accept one.
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"q has {q.shape[-1]} features, and k {k.shape[-1]}")
    if k.shape[2] != v.shape[2]:
        raise ValueError(f"there are {k.shape[2]} keys, and {v.shape[2]} values")
    return q.new_empty(*q.shape[:3], v.shape[-1])


register_autograd(_yat_attention_op, yat_attention)

SPEC = OpSpec(
    name="YatAttention",
    summary="y = softmax(scale <q, k>^2 / (max(|q|^2 + |k|^2 - 2 <q, k>, 0) + epsilon) + mask) v",
    inputs={
        "Q": "[B, H, Lq, D]",
        "K": "[B, G, Lk, D], where G divides H",
        "V": "[B, G, Lk, E]",
        "M": "[B, H, Lq, Lk], or 1 in place of any of these; one zero if there is no mask",
    },
    attributes={
        "epsilon": 1e-5,
        "scale": 1.0,
        "is_causal": 0,
        "spherical": 0,
        "power": 0.0,
        "guard": 1e-12,
    },
    attribute_types={
        "epsilon": float,
        "scale": float,
        "is_causal": int,
        "spherical": int,
        "power": float,
        "guard": float,
    },
    torch_op=torch.ops.nmn.yat_attention.default,
    exact=exact_yat_attention,
)
