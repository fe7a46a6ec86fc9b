"""ⵟ-attention as functions, under the names that the `nmn` package gives them.

They take [B, L, H, D], and differ from upstream's in three things. Half precision is computed in
float32 to the end, in `yat_attention_normalized` too. Keys and values may have fewer heads. A mask
of floating-point numbers must be zeros and ones; one that is added to the scores is
`additive_mask`.
"""

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nmn_export.errors import OptionError
from nmn_export.layers.attention_mask import added_to_scores
from nmn_export.layers.scalars import has_kernels
from nmn_export.ops import attention as ops
from nmn_export.ops.yat import Scalar

SOFTERMAX_GUARD = 1e-12
"""Added to the sum of powers, so that zero scores give zero weights."""

_AS_OP: ContextVar[bool] = ContextVar("_AS_OP", default=False)


@contextlib.contextmanager
def attention_as_op() -> Iterator[None]:
    """Let the functions call the torch op, so that a traced network has one node for each call."""
    token = _AS_OP.set(True)
    try:
        yield
    finally:
        _AS_OP.reset(token)


def yat_attention_weights(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None = None,
    dropout_p: float = 0.0,
    training: bool = True,
    epsilon: float = 1e-5,
    alpha: Scalar | None = None,
    scale: float | None = None,
    spherical: bool = False,
    *,
    is_causal: bool = False,
    additive_mask: Tensor | None = None,
) -> Tensor:
    """Return the softmax of α ⟨q, k⟩² / (√D (‖q − k‖² + ε)) over the keys.

    Args:
        query: [B, Lq, H, D].
        key: [B, Lk, G, D]. G divides H: each key head serves H / G heads of queries in a row.
        mask: Says which keys a query attends to: booleans, or numbers that are zero where it does
            not. Floating-point numbers must be zeros and ones. It broadcasts to [B, H, Lq, Lk].
        dropout_p: Rate at which weights are dropped out in training.
        training: Whether to drop weights out.
        epsilon: ε > 0.
        alpha: α.
        scale: α as a number, if `alpha` is not given.
        spherical: Divide queries and keys by √(‖·‖² + ε), and use max(2 − 2⟨q, k⟩, 0) for the
            squared distance.
        is_causal: Query i attends to keys up to i + Lk − Lq only.
        additive_mask: Floating-point numbers that are added to the scores; −∞ hides a key.

    Returns:
        [B, H, Lq, Lk] in the dtype of the query. Zeros for a query that attends to no key.

    Raises:
        OptionError: The shapes do not fit, a mask is not one, or the rate is not in [0, 1).
    """
    check_rate("dropout_p", dropout_p)
    _check_shapes(query, key, None)
    q, k = query.transpose(1, 2), key.transpose(1, 2)
    weights = ops.yat_attention_weights(
        q,
        k,
        _added(q, k, mask, additive_mask),
        epsilon,
        _multiplier(alpha, scale, query),
        is_causal,
        spherical,
    )
    return F.dropout(weights.to(query.dtype), dropout_p, training)


def yat_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout_p: float = 0.0,
    training: bool = True,
    epsilon: float = 1e-5,
    alpha: Scalar | None = None,
    scale: float | None = None,
    spherical: bool = False,
    *,
    is_causal: bool = False,
    additive_mask: Tensor | None = None,
) -> Tensor:
    """Return the sum of values [B, Lk, G, E], weighted as `yat_attention_weights` says.

    `nmn_export.export` makes one node of it if α is a number. A tensor becomes a part of the
    formula, in standard ops.

    Returns:
        [B, Lq, H, E] in the dtype of the query.

    Raises:
        OptionError: The shapes do not fit, a mask is not one, or the rate is not in [0, 1).
    """
    check_rate("dropout_p", dropout_p)
    _check_shapes(query, key, value)
    q, k, v = (t.transpose(1, 2) for t in (query, key, value))
    y = attend(
        q,
        k,
        v,
        _added(q, k, mask, additive_mask),
        epsilon,
        _multiplier(alpha, scale, query),
        is_causal,
        spherical,
        dropout=dropout_p if training else 0.0,
    )
    return y.transpose(1, 2)


def yat_attention_normalized(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout_p: float = 0.0,
    training: bool = True,
    epsilon: float = 1e-5,
    alpha: Scalar | None = None,
    scale: float | None = None,
    *,
    is_causal: bool = False,
    additive_mask: Tensor | None = None,
) -> Tensor:
    """Return `yat_attention` with `spherical=True`."""
    return yat_attention(
        query,
        key,
        value,
        mask,
        dropout_p,
        training,
        epsilon,
        alpha,
        scale,
        True,
        is_causal=is_causal,
        additive_mask=additive_mask,
    )


def normalize_qk(query: Tensor, key: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Return both divided by √(‖·‖² + ε) along the last axis."""
    q, k = (t / (t.square().sum(-1, keepdim=True) + epsilon).sqrt() for t in (query, key))
    return q, k


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    epsilon: Scalar,
    scale: Scalar,
    is_causal: bool,
    spherical: bool,
    power: float = 0.0,
    guard: Scalar = SOFTERMAX_GUARD,
    *,
    dropout: float = 0.0,
) -> Tensor:
    """Apply the torch op where it has a fused kernel or is wanted, and else the eager formula.

    Args:
        q: As in the op, and so are the others.
        k: Keys.
        v: Values.
        mask: Added to the scores.
        epsilon: ε.
        scale: The multiplier of the ⵟ-product.
        is_causal: Whether a query attends to earlier keys only.
        spherical: Whether queries and keys are normalised.
        power: 0 for softmax.
        guard: Added to the sum of powers.
        dropout: Rate at which weights are dropped out.
    """
    options = (is_causal, spherical, power, guard)
    if dropout:
        weights = ops.yat_attention_weights(q, k, mask, epsilon, scale, *options)
        return ops.weighted_values(F.dropout(weights, dropout), v, q.dtype)
    learned = isinstance(epsilon, Tensor) or isinstance(scale, Tensor)
    # The op takes numbers. Those of a learned ε or α are read where they need no gradient.
    if has_kernels(q) and not (learned and torch.is_grad_enabled()):
        epsilon, scale, learned = _number(epsilon), _number(scale), False
    if learned or not (has_kernels(q) or _AS_OP.get()):
        return ops.yat_attention(q, k, v, mask, epsilon, scale, *options)
    k, v = k.to(q.dtype), v.to(q.dtype)
    y: Tensor = torch.ops.nmn.yat_attention(q, k, v, mask, epsilon, scale, *options)
    return y


def check_rate(name: str, rate: object) -> None:
    """Raise `OptionError` unless `rate` is a number in [0, 1)."""
    if not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise OptionError(
            f"{name} must be a finite real number in [0, 1)", got=rate, fix="Use 0 to drop nothing."
        )


def _number(scalar: Scalar) -> float:
    return scalar.item() if isinstance(scalar, Tensor) else scalar


def _multiplier(alpha: Scalar | None, scale: float | None, query: Tensor) -> Scalar:
    """Return α / √D, of which at most one of the two is given."""
    factor = scale if alpha is None else alpha
    return (1.0 if factor is None else factor) / math.sqrt(query.shape[-1])


def _added(q: Tensor, k: Tensor, mask: Tensor | None, additive: Tensor | None) -> Tensor | None:
    shape = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
    return added_to_scores(mask, additive, None, shape, q.dtype)


def _check_shapes(query: Tensor, key: Tensor, value: Tensor | None) -> None:
    given = [query, key] if value is None else [query, key, value]
    value = key if value is None else value
    if not all(t.ndim == 4 for t in given):
        raise _misfit("inputs have rank 4: batch, tokens, heads and features", given)
    if not query.shape[0] == key.shape[0] == value.shape[0]:
        raise _misfit("batch dimensions are equal", given)
    if key.shape[2] != value.shape[2] or query.shape[2] % key.shape[2]:
        raise _misfit("the number of heads is equal, or a multiple for the query", given)
    if query.shape[3] != key.shape[3]:
        raise _misfit("query and key have the same head depth", given)
    if key.shape[1] != value.shape[1]:
        raise _misfit("key and value have equal sequence lengths", given)


def _misfit(rule: str, given: list[Tensor]) -> OptionError:
    shapes = ", ".join(str(tuple(t.shape)) for t in given)
    return OptionError(f"In attention, {rule}", got=f"shapes {shapes}", fix="Change the inputs.")
