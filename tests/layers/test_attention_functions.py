"""ⵟ-attention as functions, in upstream's layout [B, L, H, D]."""

import inspect
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nmn_export import layers
from nmn_export.layers import (
    normalize_qk,
    yat_attention,
    yat_attention_normalized,
    yat_attention_weights,
)

NAMES = ("normalize_qk", "yat_attention", "yat_attention_normalized", "yat_attention_weights")


def inputs(dtype: torch.dtype = torch.float32, heads: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    shapes = ((2, 5, 3, 4), (2, 7, heads, 4), (2, 7, heads, 6))
    q, k, v = (torch.randn(shape, generator=random).to(dtype) for shape in shapes)
    return q, k, v


def some_mask() -> Tensor:
    mask = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(4)) < 0.5
    mask[0, :, 2] = False
    return mask


@pytest.mark.parametrize("name", NAMES)
def test_they_take_upstreams_arguments_in_the_same_order(name: str) -> None:
    nmn = pytest.importorskip("nmn.torch.attention")
    expected = inspect.signature(getattr(nmn, name)).parameters.values()
    found = inspect.signature(getattr(layers, name)).parameters.values()
    ours = [p for p in found if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in expected]


OPTIONS = [
    {},
    {"epsilon": 0.3, "scale": -1.5},
    {"alpha": torch.tensor([0.7]), "scale": 9.0},
    {"mask": some_mask()},
    {"mask": torch.tensor([True, False, True, True, False, True, True])},
    {"mask": some_mask().float()},
    {"spherical": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids="+".join)
@pytest.mark.parametrize("name", NAMES[1:])
def test_they_compute_what_upstream_does(name: str, options: dict[str, Any]) -> None:
    nmn = pytest.importorskip("nmn.torch.attention")
    options = options if "normalized" not in name else options.copy() | {"spherical": None}
    options = {k: v for k, v in options.items() if v is not None}
    tensors = inputs()[:2] if "weights" in name else inputs()
    expected = getattr(nmn, name)(*tensors, **options)
    torch.testing.assert_close(getattr(layers, name)(*tensors, **options), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("spherical", [False, True])
def test_half_precision_is_computed_in_float32_to_the_end(
    dtype: torch.dtype, spherical: bool
) -> None:
    q, k, v = inputs(dtype)
    wide = [t.float() for t in (q, k, v)]
    y = yat_attention(q, k, v, spherical=spherical)
    assert torch.equal(y, yat_attention(*wide, spherical=spherical).to(dtype))
    weights = yat_attention_weights(q, k, spherical=spherical)
    assert torch.equal(weights, yat_attention_weights(*wide[:2], spherical=spherical).to(dtype))
    if spherical:
        assert torch.equal(y, yat_attention_normalized(q, k, v))


def test_the_output_is_the_sum_of_weighted_values() -> None:
    q, k, v = inputs(heads=1)
    options: dict[str, Any] = {"is_causal": True, "additive_mask": torch.randn(5, 7), "scale": 2.0}
    weights = yat_attention_weights(q, k, **options)
    assert weights.shape == (2, 3, 5, 7)
    y = yat_attention(q, k, v, **options)
    torch.testing.assert_close(y, torch.einsum("bhqk,bkge->bqhe", weights, v))
    later = torch.ones(5, 7, dtype=torch.bool).triu(3)
    assert not weights[..., later].any()
    assert weights[..., ~later].all()


def test_dropout_acts_in_training_only() -> None:
    q, k, v = inputs()
    torch.manual_seed(0)
    assert torch.equal(yat_attention(q, k, v, None, 0.5, False), yat_attention(q, k, v))
    assert not torch.equal(yat_attention(q, k, v, None, 0.5), yat_attention(q, k, v))
    weights = yat_attention_weights(q, k, None, 0.5)
    dropped = weights == 0
    assert 0.3 < dropped.float().mean() < 0.7
    kept = yat_attention_weights(q, k)[~dropped]
    torch.testing.assert_close(weights[~dropped], 2 * kept)


def test_normalize_qk_guards_the_square_of_the_norm() -> None:
    q, k, _ = inputs()
    for found, t in zip(normalize_qk(q, k, 0.5), (q, k), strict=True):
        torch.testing.assert_close(found, t / (t.norm(dim=-1, keepdim=True) ** 2 + 0.5).sqrt())


def test_alpha_and_queries_receive_gradients_where_a_query_sees_nothing() -> None:
    q, k, v = (t.requires_grad_() for t in inputs())
    alpha = torch.ones(1, requires_grad=True)
    yat_attention(q, k, v, some_mask(), alpha=alpha).square().sum().backward()
    assert all(t.grad.isfinite().all() and t.grad.any() for t in (q, k, v, alpha))


WRONG = {
    "rank": ((2, 3), (2, 7, 3, 4), (2, 7, 3, 6), "inputs have rank 4"),
    "batch": ((2, 5, 3, 4), (1, 7, 3, 4), (2, 7, 3, 6), "batch dimensions are equal"),
    "heads": ((2, 5, 3, 4), (2, 7, 2, 4), (2, 7, 2, 6), "number of heads is equal, or a multiple"),
    "key heads": ((2, 5, 4, 4), (2, 7, 2, 4), (2, 7, 4, 6), "number of heads"),
    "depth": ((2, 5, 3, 4), (2, 7, 3, 5), (2, 7, 3, 6), "the same head depth; got shapes"),
    "length": ((2, 5, 3, 4), (2, 7, 3, 4), (2, 6, 3, 6), "equal sequence lengths; got shapes"),
}


@pytest.mark.parametrize(("q", "k", "v", "message"), WRONG.values(), ids=list(WRONG))
@pytest.mark.parametrize("compiled", [False, True])
def test_shapes_that_do_not_fit_are_refused(
    q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...], message: str, compiled: bool
) -> None:
    run = torch.compile(yat_attention, backend="eager") if compiled else yat_attention
    with pytest.raises(ValueError, match=message):
        run(torch.ones(q), torch.ones(k), torch.ones(v))


@pytest.mark.parametrize("rate", [1.0, -0.1, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    q, k, v = inputs()
    for call in (
        lambda: yat_attention(q, k, v, None, rate),
        lambda: yat_attention_weights(q, k, None, rate),
    ):
        with pytest.raises(ValueError, match="dropout_p must be a finite real number"):
            call()
