"""Cases of linear attention, and the bound on the error of a correct program."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nmn_export.ops.linear_attention import exact_linear_attention
from nmn_export.ops.yat import compute_dtype
from tests.cases.common import generator

UNITS = 16.0
"""Largest rounding error of a sum, in units u of the sum of the magnitudes of its terms."""


@dataclass(frozen=True)
class LinearAttentionCase:
    """One call of causal linear attention.

    Attributes:
        id: What is special about it.
        lead: Leading axes: batch and heads.
        length: L.
        features: M.
        value_features: E.
        signed: Whether features have both signs, and the guard the sign of the denominator.
        epsilon: The guard.
        size: Typical size of features and values.
        hidden: Number of keys at the start that have no features.
    """

    id: str
    lead: tuple[int, ...] = (2, 2)
    length: int = 70
    features: int = 16
    value_features: int = 8
    signed: bool = False
    epsilon: float = 1e-5
    size: float = 1.0
    hidden: int = 0

    def tensors(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
        """Draw features of queries and keys, and values, with a fixed seed."""
        random = generator(self.id)

        def draw(features: int) -> Tensor:
            return self.size * torch.randn(*self.lead, self.length, features, generator=random)

        qf, kf, v = draw(self.features), draw(self.features), draw(self.value_features)
        if not self.signed:
            qf, kf = qf.abs(), kf.abs()
        kf[..., : self.hidden, :] = 0
        return qf.to(dtype), kf.to(dtype), v.to(dtype)

    def arguments(self, dtype: torch.dtype = torch.float32) -> tuple[object, ...]:
        """Return the arguments of `nmn::causal_linear_attention`."""
        return (*self.tensors(dtype), self.epsilon, self.signed)


def assert_near_exact(y: Tensor, arguments: tuple[object, ...], *, causal: bool = True) -> None:
    """Fail unless rounding can explain every element of `y`.

    With the numerator known to 16 u Σ |w v|, and the denominator to 16 u Σ |w|, where w is a weight
    Σ |φ(q) φ(k)|, the quotient is known to their sum over the denominator. Features of both signs
    can have any quotient where the denominator has no digits; such elements have no bound.
    """
    qf, kf, v, epsilon, signed = arguments
    assert isinstance(v, Tensor)
    exact = exact_linear_attention(qf, kf, v, epsilon, signed, causal)
    weights = qf.double().abs() @ kf.double().abs().mT
    exact_weights = qf.double() @ kf.double().mT
    if causal:
        weights, exact_weights = weights.tril(), exact_weights.tril()
    total = exact_weights.sum(-1, keepdim=True)
    guard = torch.where(total < 0, -epsilon, epsilon) if signed else epsilon
    u = UNITS * torch.finfo(compute_dtype(v.dtype)).eps
    unknown = u * weights.sum(-1, keepdim=True)
    denominator = (total + guard).abs()
    numerator_error = u * weights @ v.double().abs() + exact.abs() * unknown
    known = denominator > 2 * unknown
    bound = torch.where(known, numerator_error / (denominator - unknown), torch.inf)
    largest = torch.finfo(v.dtype).max
    bound = bound + 2 * torch.finfo(v.dtype).eps * exact.abs() + torch.finfo(v.dtype).tiny
    assert y.shape == exact.shape
    assert y.dtype == v.dtype
    assert known.double().mean() > 0.9, "the case has no bound"
    wrong = ~((y.double() - exact.clamp(-largest, largest)).abs() <= bound)
    if wrong.any():
        at = tuple(wrong.nonzero()[0].tolist())
        raise AssertionError(
            f"{int(wrong.sum())} of {y.numel()} elements are too far from exact; at {at} "
            f"{y[at].item():.9g} is not {exact[at].item():.9g} ± {bound[at].item():.2g}"
        )


LINEAR_ATTENTION_CASES = (
    LinearAttentionCase("plain"),
    LinearAttentionCase("all-sizes-one", lead=(1, 1), length=1, features=1, value_features=1),
    LinearAttentionCase("shorter-than-a-chunk", length=5, features=7, value_features=3),
    LinearAttentionCase("one-chunk", length=64),
    LinearAttentionCase("one-past-a-chunk", length=65, features=33, value_features=17),
    LinearAttentionCase("many-chunks", lead=(1, 2), length=400, features=8, value_features=4),
    LinearAttentionCase("many-features", lead=(1, 1), length=100, features=300, value_features=5),
    LinearAttentionCase("many-values", lead=(1, 1), length=66, features=20, value_features=150),
    LinearAttentionCase("signed", signed=True, epsilon=1e-6, length=130),
    LinearAttentionCase("signed-large-guard", signed=True, epsilon=0.5),
    LinearAttentionCase("hidden-keys", hidden=67, length=90),
    LinearAttentionCase("large", size=100.0, epsilon=1e-3),
    LinearAttentionCase("tiny", size=1e-4, epsilon=1e-12),
    LinearAttentionCase("vanishing", size=1e-12, epsilon=1e-5),
)


def linear_attention_case(case_id: str) -> LinearAttentionCase:
    """Return one case of the table."""
    return next(case for case in LINEAR_ATTENTION_CASES if case.id == case_id)
