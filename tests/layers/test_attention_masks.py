"""Masks of ⵟ-attention: what each kind means, and queries that see no key."""

import math

import pytest
import torch
from torch import Tensor

from nmn_export.errors import OptionError
from tests.layers.attention_layers import E, H, layer, masks, tokens


@pytest.mark.parametrize("name", ["bool", "int32", "float32", "additive"])
def test_masks_of_every_kind_mean_the_same(name: str) -> None:
    y, mask = layer(), masks(4, 6)
    expected = y(tokens(4), tokens(6), mask=mask)
    if name == "additive":
        added = torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))
        found = y(tokens(4), tokens(6), additive_mask=added)
    else:
        found = y(tokens(4), tokens(6), mask=mask.to(getattr(torch, name)))
    assert torch.equal(found, expected)


def test_an_additive_mask_is_added_to_the_scores() -> None:
    y, added = layer(), torch.randn(2, H, 4, 6)
    added[0, :, 1, 2:] = float("-inf")
    op = y.fold()
    q, k, v = (torch.randn(2, H, n, E // H) for n in (4, 6, 6))
    weights = (y.attend(q, k, torch.eye(6).expand(2, H, 6, 6), m) for m in (None, added))
    without, found = weights
    torch.testing.assert_close(found, (without.log() + added).softmax(-1))
    torch.testing.assert_close(op.attend(q, k, v, added), y.attend(q, k, v, added))
    x = tokens(4), tokens(6)
    assert not torch.allclose(y(*x, additive_mask=added), y(*x))


def test_masks_are_combined() -> None:
    y, mask, added = layer(), masks(4, 6), torch.randn(4, 6)
    lengths = torch.tensor([6, 3])
    exists = (torch.arange(6) < lengths[:, None])[:, None, None]
    expected = y(
        tokens(4),
        tokens(6),
        additive_mask=added.expand(2, H, 4, 6).masked_fill(~(mask & exists), float("-inf")),
    )
    found = y(tokens(4), tokens(6), mask=mask, key_lengths=lengths, additive_mask=added)
    assert torch.equal(found, expected)


def test_key_lengths_hide_padding() -> None:
    y, x, key = layer(), tokens(4), tokens(6)
    found = y(x, key, key_lengths=torch.tensor([6, 2], dtype=torch.int32))
    torch.testing.assert_close(found[0], y(x, key)[0])
    torch.testing.assert_close(found[1], y(x, key[:, :2])[1])


def test_a_query_that_no_head_shows_a_key_to_gives_zeros_without_the_bias() -> None:
    y, mask = layer(), masks(4, 6)
    assert y.out_proj.bias.abs().min() > 0
    out = y(tokens(4), tokens(6), mask=mask)
    assert not out[1, 1].any()
    assert out[0].all()
    heads = layer(use_out_proj=False)
    heads.load_state_dict({n: t for n, t in y.state_dict().items() if "out_proj" not in n})
    bare = heads(tokens(4), tokens(6), mask=mask)
    assert not bare[1, 1].any()
    # Head 2 of query 0 sees nothing, and the other heads keep their part.
    assert not bare[0, 0, 2 * E // H :].any()
    assert bare[0, 0, : 2 * E // H].all()
    torch.testing.assert_close(out[0, 0], y.out_proj(bare[0, 0]))  # with the bias


@pytest.mark.parametrize("mask", [None, "keys"])
def test_causal_queries_before_all_keys_give_zeros(mask: str | None) -> None:
    y = layer(is_causal=True)
    seen = None if mask is None else torch.tensor([False, True, True]).expand(2, 1, 1, 3)
    out = y(tokens(5), tokens(3), mask=seen)
    blank = 2 if mask is None else 3  # the first key that they could see is hidden
    assert not out[:, :blank].any()
    assert out[:, blank:].all()


def test_every_parameter_receives_a_finite_gradient_if_some_queries_see_nothing() -> None:
    y, x = layer(learnable_epsilon=True).train(), tokens(4).requires_grad_()
    y(x, mask=masks(4, 4)).square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in (x, *y.parameters()))


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (
            {"mask": torch.ones(2, 6, dtype=torch.bool)},
            r"broadcast to the scores, of shape \(2, 3, 4, 6\); got shape \(2, 6\)\. Give it",
        ),
        ({"mask": torch.ones(1, 2, 3, 4, 6)}, r"must broadcast .*; got shape \(1, 2, 3, 4, 6\)"),
        (
            {"mask": torch.tensor([0.0, -math.inf]).repeat(3)},
            r"its numbers are 0 and 1; got numbers from -inf to 0\. Pass .* as additive_mask",
        ),
        ({"mask": torch.full((4, 6), 0.5)}, r"its numbers are 0 and 1; got numbers from 0\.5 to"),
        ({"additive_mask": torch.ones(3, 6)}, r"additive_mask must broadcast to the scores"),
        (
            {"additive_mask": torch.ones(4, 6, dtype=torch.bool)},
            r"additive_mask has floating-point numbers; got torch\.bool\. Pass booleans",
        ),
        ({"key_lengths": torch.tensor([1])}, r"one integer for each item .* \(1,\) for 2 items"),
        ({"key_lengths": torch.ones(2)}, r"one integer .*; got torch\.float32 of shape \(2,\)"),
    ],
)
def test_a_bad_mask_is_refused(masks: dict[str, Tensor], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        layer()(tokens(4), tokens(6), **masks)
