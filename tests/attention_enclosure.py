"""Bounds on the result of a correct YatAttention for any inputs."""

import torch
from torch import Tensor

from nmn_export.ops import exact_yat_attention
from nmn_export.ops.yat import compute_dtype
from tests import enclosure
from tests.cases import AttentionCase
from tests.enclosure import Parts, assert_between, enclose


def assert_attention_near_exact(
    y: Tensor,
    case: AttentionCase,
    arguments: tuple[object, ...],
    *,
    rounds_weights: bool = False,
) -> None:
    """Fail unless rounding can explain every element of `y`.

    Args:
        y: What was computed.
        case: What was asked for.
        arguments: Those of the torch op, in the dtype of `y`.
        rounds_weights: See `attention_bounds`.
    """
    assert_between(y, *attention_bounds(y.dtype, case, arguments, rounds_weights=rounds_weights))


def attention_bounds(
    dtype: torch.dtype,
    case: AttentionCase,
    arguments: tuple[object, ...],
    *,
    rounds_weights: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the smallest, the exact and the largest output, in float64.

    Every score lies in the interval of a ⵟ-product. From these follow intervals of the weights, and
    from these how far a weighted sum can be from the exact one.

    Args:
        dtype: Of the output.
        case: What was asked for.
        arguments: Those of the torch op, in `dtype`.
        rounds_weights: Whether the program rounds weights to `dtype` before it multiplies them by
            values, as the fused kernels do. The largest weight of a row is 1 then.
    """
    exact = exact_yat_attention(*arguments)
    wide = compute_dtype(dtype)
    least, most = _scores(wide, arguments)
    low, high = _weights(least, most, case.power, case.guard)
    values = arguments[2].double().repeat_interleave(case.heads // arguments[2].shape[1], 1)
    assert (high >= low).all(), "an interval is wrong"
    info = torch.finfo(dtype)
    rounding = enclosure.UNITS * torch.finfo(wide).eps
    error = high - low + rounding * high
    if rounds_weights:
        # Half a unit in the last place; that of a subnormal number is the least of all.
        error = error + info.eps / 2 * high + info.smallest_normal * info.eps / 2 * (high > 0)
    slack = error @ values.abs() + 2 * info.eps * exact.abs() + info.tiny
    low, high = ((exact + sign * slack).clamp(-info.max, info.max) for sign in (-1, 1))
    return low, exact, high


def _scores(wide: torch.dtype, arguments: tuple[object, ...]) -> tuple[Tensor, Tensor]:
    """Return the smallest and largest score of every query and key; −∞ for hidden keys."""
    q, k, _, mask, epsilon, scale, is_causal, spherical, *_ = arguments
    q, k = q.double(), k.double().repeat_interleave(q.shape[1] // k.shape[1], 1)
    if spherical:
        q, k = (t / (t.square().sum(-1, keepdim=True) + epsilon).sqrt() for t in (q, k))
        q_sq = k_sq = torch.ones((), dtype=torch.float64)
        exact = torch.zeros(())
    else:
        q_sq, k_sq = q.square().sum(-1, keepdim=True), k.square().sum(-1).unsqueeze(-2)
    dot = q @ k.mT
    exact = scale * dot.square() / ((q_sq + k_sq - 2 * dot).clamp_min(0) + epsilon)
    hidden = torch.zeros((), dtype=torch.float64) if mask is None else mask.double()
    if is_causal:
        queries, keys = dot.shape[-2:]
        later = torch.ones(queries, keys, dtype=torch.bool).triu(keys - queries + 1)
        hidden = hidden.masked_fill(later, float("-inf"))
    low, _, high = enclose(wide, Parts(exact, dot, q_sq, k_sq, 0.0), epsilon, scale)
    return low + hidden, high + hidden


def _weights(least: Tensor, most: Tensor, power: float, guard: float) -> tuple[Tensor, Tensor]:
    """Return the smallest and largest weight of every value.

    The weight of a key is the largest when its score is, and all others are the smallest.
    """
    low, high = _weights_from(least, most, power, guard), _weights_from(most, least, power, guard)
    return low, high


def _weights_from(own: Tensor, others: Tensor, power: float, guard: float) -> Tensor:
    """Return the weight of each value if its score is in `own`, and all others in `others`."""
    hidden = own == float("-inf")
    if power:
        own, others = (t.masked_fill(hidden, 0).pow(power) for t in (own, others))
        own, others = own.masked_fill(hidden, 0), others.masked_fill(hidden, 0)
        return own / (own + others.sum(-1, keepdim=True) - others + guard)
    ratios = (others.unsqueeze(-2) - own.unsqueeze(-1)).exp()  # of every other key to this one
    itself = torch.eye(own.shape[-1], dtype=torch.bool)
    weights = 1 / (1 + ratios.masked_fill(itself, 0).sum(-1))
    return weights.masked_fill(hidden, 0)
