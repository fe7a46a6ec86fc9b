"""YatAttention's kernel in Triton's interpreter."""

import dataclasses
import itertools

import pytest
import torch
from torch import Tensor

from nmn_export.kernels.attention.launch import yat_attention
from nmn_export.kernels.attention.options import Options
from nmn_export.kernels.attention.plan import AttentionPlan
from nmn_export.kernels.tile_size import Tile
from nmn_export.kernels.weights import Float32Precision
from nmn_export.ops import exact_yat_attention
from tests import enclosure
from tests.attention_enclosure import assert_attention_near_exact, attention_bounds
from tests.cases import ATTENTION_CASES, AttentionCase, attention_case, with_dtypes

SMALL = Tile(m=16, n=16, k=256, warps=4, stages=2)
PLANS = (
    AttentionPlan(SMALL),
    AttentionPlan(dataclasses.replace(SMALL, m=32, n=32, k=16)),
    AttentionPlan(SMALL, parts=3, split=True),
    AttentionPlan(dataclasses.replace(SMALL, n=32, k=16), parts=1, split=True),
)


def plan_id(plan: AttentionPlan) -> str:
    tile = plan.tile
    return f"{tile.m}x{tile.n}x{tile.k}" + f"-{plan.parts}-parts" * plan.split


def compute(
    arguments: tuple[object, ...],
    plan: AttentionPlan,
    precision: Float32Precision | None = None,
    key_lengths: Tensor | None = None,
) -> Tensor:
    q, k, v, mask, epsilon, scale, is_causal, spherical, power, guard = arguments
    return yat_attention(
        q,
        k,
        v,
        mask,
        Options.of(epsilon, scale, spherical, power, guard),
        is_causal=is_causal,
        precision=precision,
        key_lengths=key_lengths,
        plan=plan,
    )


CASES = [
    pytest.param(*case.values, plan, id=f"{case.id}-{plan_id(plan)}")
    for case, plan in zip(
        with_dtypes(ATTENTION_CASES, torch.float16, torch.bfloat16),
        itertools.cycle((*PLANS, *PLANS[:1])),
    )
]
"""Four dtypes and plans in turn."""


@pytest.mark.parametrize(("case", "dtype", "plan"), CASES)
def test_near_exact(case: AttentionCase, dtype: torch.dtype, plan: AttentionPlan) -> None:
    arguments = case.arguments(dtype)
    y = compute(arguments, plan)
    assert y.is_contiguous()
    assert_attention_near_exact(y, case, arguments, rounds_weights=True)


@pytest.mark.parametrize("plan", PLANS, ids=plan_id)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_later_token_changes_no_bit_of_an_earlier_output(
    dtype: torch.dtype, plan: AttentionPlan
) -> None:
    case = dataclasses.replace(attention_case("causal"), queries=21, keys=37, heads=2, key_heads=1)
    q, k, v, *rest = case.arguments(dtype)
    before = compute((q, k, v, *rest), plan)
    for key in range(case.keys):
        changed_k, changed_v = k.clone(), v.clone()
        changed_k[:, :, key], changed_v[:, :, key] = 3 * k[:, :, key] + 1, -v[:, :, key]
        after = compute((q, changed_k, changed_v, *rest), plan)
        first = max(0, key - (case.keys - case.queries))  # the first query that sees this key
        assert torch.equal(after[:, :, :first], before[:, :, :first])
        assert not torch.equal(after[:, :, first:], before[:, :, first:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("case_id", ["many-keys", "causal", "softermax-cubed", "hidden-rows"])
def test_parts_of_keys_give_what_all_keys_give(case_id: str, dtype: torch.dtype) -> None:
    arguments = attention_case(case_id).arguments(dtype)
    whole = compute(arguments, AttentionPlan(SMALL))
    tolerance = 8 * torch.finfo(dtype).eps
    for parts in (1, 2, 5, 16):
        plan = AttentionPlan(SMALL, parts, split=True)
        y = compute(arguments, plan)
        torch.testing.assert_close(y, whole, rtol=tolerance, atol=tolerance)
        assert torch.equal(y, compute(arguments, plan)), "the counters are zero again"


@pytest.mark.parametrize("plan", PLANS, ids=plan_id)
def test_keys_past_their_length_are_hidden_and_not_read(plan: AttentionPlan) -> None:
    case = AttentionCase("lengths", batch=4, heads=4, key_heads=2, queries=3, keys=40)
    q, k, v, _, *rest = case.arguments(torch.float16)
    lengths = torch.tensor([40, 0, 17, 1], dtype=torch.int32)
    past = torch.arange(case.keys) >= lengths[:, None]
    mask = torch.zeros(past.shape).masked_fill(past, float("-inf"))[:, None, None]
    expected = compute((q, k, v, mask, *rest), plan)
    for t in (k, v):
        t.masked_fill_(past[:, None, :, None], float("nan"))
    y = compute((q, k, v, None, *rest), plan, key_lengths=lengths)
    torch.testing.assert_close(y, expected, rtol=2e-3, atol=1e-3)
    assert not y[1].any()


@pytest.mark.parametrize("features", [(32, 32), (48, 200), (129, 16), (256, 256)])
def test_features_up_to_256(features: tuple[int, int]) -> None:
    case = AttentionCase(
        "features", batch=1, queries=2, features=features[0], value_features=features[1]
    )
    for dtype, plan in ((torch.float16, PLANS[2]), (torch.float32, PLANS[1])):
        arguments = case.arguments(dtype)
        assert_attention_near_exact(compute(arguments, plan), case, arguments, rounds_weights=True)


@pytest.mark.parametrize("plan", PLANS, ids=plan_id)
def test_any_strides(plan: AttentionPlan) -> None:
    case = AttentionCase("strides", heads=4, key_heads=2, keys=9, features=6, mask="pairs")
    q, k, v, mask, *rest = case.arguments()
    expected = exact_yat_attention(q, k, v, mask, *rest)
    rows = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v)]
    cache = [torch.cat([t, t], 2)[:, :, : t.shape[2]] for t in (q, k, v)]
    transposed = [t.mT.contiguous().mT for t in (q, k, v)]
    for tensors in (rows, cache, transposed):
        for broadcast in (mask, mask.T.contiguous().T, mask.expand(2, 4, *mask.shape)):
            y = compute((*tensors, broadcast, *rest), plan)
            torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-6)


def test_finite_numbers_in_a_mask_hide_nothing() -> None:
    case = attention_case("mask-of-keys")
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        q, k, v, _, *rest = case.arguments(dtype)
        mask = torch.full((1, 1, 1, case.keys), torch.finfo(dtype).min, dtype=dtype)
        for plan in PLANS:
            y = compute((q, k, v, mask, *rest), plan)
            expected = exact_yat_attention(q, k, v, mask, *rest)
            torch.testing.assert_close(y.double(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0, 2.5])
def test_powers_of_negative_scores(power: float) -> None:
    q, k, v, mask, epsilon, *_ = attention_case("mask-additive").arguments()
    arguments = (q, k, v, mask, epsilon, -0.5, False, False, power, 1e-3)
    expected = exact_yat_attention(*arguments)
    assert expected.isnan().all() == (power == 2.5)
    for plan in PLANS:
        y = compute(arguments, plan).double()
        torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-4, equal_nan=True)


def test_powers_do_not_overflow() -> None:
    case = AttentionCase("powers", values="equal", size=100.0, power=9.0, queries=4, keys=4)
    arguments = case.arguments()
    q, k, *_ = arguments
    score = case.scale * (q[0, 0, 0] @ k[0, 0, 0]) ** 2 / case.epsilon
    assert torch.isinf(score**case.power)
    for plan in PLANS:
        y = compute(arguments, plan)
        torch.testing.assert_close(y.double(), exact_yat_attention(*arguments))


@pytest.mark.parametrize("precision", ["bf16x6", "ieee"])
def test_float32_is_as_good_as_float32(precision: Float32Precision) -> None:
    case = attention_case("near-competing-keys")
    arguments = case.arguments()
    for plan in PLANS:
        assert_attention_near_exact(compute(arguments, plan, precision), case, arguments)


def test_three_products_have_the_precision_of_two_bfloat16_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Each operand has a relative error up to 2^-16, and the product of the low parts is omitted.
    case = attention_case("one-past-a-power-of-two")
    arguments = case.arguments()
    y = compute(arguments, PLANS[0], "bf16x3")
    monkeypatch.setattr(enclosure, "UNITS", 1.0)
    with pytest.raises(AssertionError, match="too far from exact"):
        assert_attention_near_exact(y, case, arguments)
    monkeypatch.setattr(enclosure, "UNITS", 16 + 3 * 2**-16 / 2**-23)
    assert_attention_near_exact(y, case, arguments)


@pytest.mark.parametrize("plan", PLANS, ids=plan_id)
def test_tf32_computes_norms_from_truncated_values(
    plan: AttentionPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enclosure, "UNITS", 3.0)  # to tell the two from each other
    case = attention_case("near-competing-keys")
    q, k, _, *rest = case.arguments()
    v = torch.eye(case.keys).expand(*k.shape[:3], -1)  # the output is the weights
    y = compute((q, k, v, *rest), plan, "tf32").double()
    seen = [(t.view(torch.int32) & -8192).view(torch.float32) for t in (q, k)]

    def is_near_exact(q: Tensor, k: Tensor) -> bool:
        low, _, high = attention_bounds(torch.float32, case, (q, k, v, *rest))
        weight_error = 2.0**-10  # they are truncated, too
        return bool(((low - weight_error <= y) & (y <= high + weight_error)).all())

    assert is_near_exact(*seen)
    assert not is_near_exact(q, k)
