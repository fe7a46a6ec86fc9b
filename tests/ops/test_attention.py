import math
from collections.abc import Callable
from operator import attrgetter

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from nmn_export.ops import exact_yat_attention, yat_attention
from nmn_export.ops.attention import yat_attention_weights
from tests.attention_enclosure import assert_attention_near_exact
from tests.cases import ATTENTION_CASES, AttentionCase, attention_case, with_dtypes

TORCH_OP = torch.ops.nmn.yat_attention

SMALL = tuple(
    case for case in ATTENTION_CASES if case.queries * case.keys * case.features * case.heads < 9000
)

BOTH = pytest.mark.parametrize("op", [yat_attention, TORCH_OP], ids=["eager", "torch-op"])


def literal_yat_attention(
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
    """The definition in plain loops, over Python floats."""
    batch, heads, queries, _ = q.shape
    groups, keys = k.shape[1:3]
    mask = torch.zeros(()) if mask is None else mask.double()
    added = mask.expand(batch, heads, queries, keys).tolist()

    def unit(x: list[float]) -> list[float]:
        norm = math.sqrt(math.fsum(a * a for a in x) + epsilon)
        return [a / norm for a in x] if spherical else x

    def score(x: list[float], y: list[float]) -> float:
        x, y = unit(x), unit(y)
        dot = math.fsum(a * b for a, b in zip(x, y, strict=True))
        distance = math.fsum((a - b) ** 2 for a, b in zip(x, y, strict=True))
        return scale * dot**2 / ((max(2 - 2 * dot, 0) if spherical else distance) + epsilon)

    y = []
    for item in range(batch):
        for head in range(heads):
            group = head // (heads // groups)
            for query in range(queries):
                visible = {}
                for key in range(keys):
                    more = added[item][head][query][key]
                    if more > -math.inf and not (is_causal and key > query + keys - queries):
                        one, other = q[item, head, query].tolist(), k[item, group, key].tolist()
                        visible[key] = score(one, other) + more
                largest = max(visible.values(), default=0.0)
                weights = {
                    key: z**power if power else math.exp(z - largest) for key, z in visible.items()
                }
                total = math.fsum(weights.values()) + (guard if power else 0.0)
                for feature in range(v.shape[3]):
                    values = v[item, group, :, feature].tolist()
                    y.append(
                        math.fsum(w * values[key] for key, w in weights.items()) / (total or 1)
                    )
    return torch.tensor(y, dtype=torch.float64).reshape(*q.shape[:3], v.shape[3])


@pytest.mark.parametrize("case", SMALL, ids=attrgetter("id"))
def test_exact_is_the_definition(case: AttentionCase) -> None:
    arguments = case.arguments()
    # Where 2 − 2⟨q, k⟩ cancels, the score has lost half of the digits of float64.
    close = case.spherical and case.values == "near"
    torch.testing.assert_close(
        exact_yat_attention(*arguments),
        literal_yat_attention(*arguments),
        rtol=1e-6 if close else 1e-9,
        atol=1e-12,
    )


def test_exact_sums_differences_where_norms_would_cancel() -> None:
    random = torch.Generator().manual_seed(1)
    k = torch.randn(1, 1, 6, 9, dtype=torch.float64, generator=random)
    q = k + 1e-7 * torch.randn(k.shape, dtype=torch.float64, generator=random)
    arguments = (q, k, k, None, 1e-20, 1e-15, False, False, 0.0, 0.0)
    expected = literal_yat_attention(*arguments)
    torch.testing.assert_close(exact_yat_attention(*arguments), expected, rtol=1e-6, atol=0)
    weights = yat_attention_weights(q, k, epsilon=1e-20, scale=1e-15)
    assert (weights.diagonal(dim1=-2, dim2=-1) > 1 / 6).all()  # the others do not vanish
    assert not torch.allclose(weights @ k, expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("case", "dtype"),
    with_dtypes(ATTENTION_CASES, torch.float16, torch.bfloat16, torch.float64),
)
def test_eager_is_near_exact(case: AttentionCase, dtype: torch.dtype) -> None:
    arguments = case.arguments(dtype)
    y = yat_attention(*arguments)
    assert y.dtype == dtype
    assert_attention_near_exact(y, case, arguments)


HIDING = ("hidden-rows", "causal-with-fewer-keys", "softermax-hidden-rows")


@pytest.mark.parametrize("case_id", HIDING)
@BOTH
def test_a_query_that_sees_no_key_gives_zeros(case_id: str, op: Callable[..., Tensor]) -> None:
    case = attention_case(case_id)
    y = op(*case.arguments())
    if case.is_causal:
        hidden = torch.arange(case.queries) < case.queries - case.keys
        assert not y[:, :, hidden].any()
        assert y[:, :, ~hidden].any(-1).all()
    else:
        assert not y[0].any()
        assert not y[1, :, 1].any()
        assert y[1, :, 0].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "case_id", ["causal", "one-key-head", "softermax-fractional-causal", "causal-and-mask"]
)
@BOTH
def test_no_output_depends_on_later_tokens(
    case_id: str, dtype: torch.dtype, op: Callable[..., Tensor]
) -> None:
    case = attention_case(case_id)
    q, k, v, *rest = case.arguments(dtype)
    before = op(q, k, v, *rest)
    for at in (1, case.keys // 2, case.keys - 1):
        later_k, later_v = k.clone(), v.clone()
        later_k[:, :, at:] = 100 * later_k[:, :, at:].flip(-1)
        later_v[:, :, at:] = -1000
        after = op(q, later_k, later_v, *rest)
        assert torch.equal(after[:, :, :at], before[:, :, :at])
        assert not torch.equal(after[:, :, at:], before[:, :, at:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_nan_stays_nan_in_its_query(dtype: torch.dtype) -> None:
    q, *rest = attention_case("grouped-keys").arguments(dtype)
    q[0, 1, 2, 3] = float("nan")
    y = yat_attention(q, *rest)
    wrong = y.isnan().any(-1)
    assert y[0, 1, 2].isnan().all()
    assert wrong.sum() == 1


def test_half_precisions_accumulate_in_float32() -> None:
    arguments = attention_case("one-past-a-power-of-two").arguments(torch.float16)
    wide = [t.float() if isinstance(t, Tensor) else t for t in arguments]
    assert torch.equal(yat_attention(*arguments), yat_attention(*wide).half())


def test_half_precisions_saturate() -> None:
    largest = torch.finfo(torch.float16).max
    q = torch.ones(1, 1, 1, 2, dtype=torch.float16)
    v = torch.full((1, 1, 4, 3), largest, dtype=torch.float16)
    # Every score is 1, so the weights add up to 4 / 3.5.
    y = yat_attention(q, q.expand(1, 1, 4, 2), v, power=1.0, scale=1.0, epsilon=4.0, guard=-0.5)
    assert (y == largest).all()


def test_key_heads_serve_the_heads_of_queries_in_a_row() -> None:
    q, k, v, *rest = attention_case("grouped-keys").arguments()
    y = yat_attention(q, k, v, *rest)
    for head in range(6):
        own = [t[:, head // 3 : head // 3 + 1] for t in (k, v)]
        torch.testing.assert_close(y[:, head : head + 1], yat_attention(q[:, [head]], *own, *rest))


@pytest.mark.parametrize("case_id", ["grouped-keys", "causal-and-mask", "softermax"])
def test_an_empty_batch_gives_an_empty_result(case_id: str) -> None:
    q, k, v, mask, *rest = attention_case(case_id).arguments()
    mask = None if mask is None else mask[:0]
    for op in (yat_attention, exact_yat_attention, TORCH_OP):
        assert op(q[:0], k[:0], v[:0], mask, *rest).shape == (0, *q.shape[1:])


def test_no_keys_give_zeros() -> None:
    q, k, v, *rest = attention_case("plain").arguments()
    for op in (yat_attention, exact_yat_attention, TORCH_OP):
        assert torch.equal(op(q, k[:, :, :0], v[:, :, :0], *rest), torch.zeros_like(q).to(q.dtype))


DIFFERENTIABLE = (
    "plain",
    "grouped-keys",
    "causal-with-fewer-keys",
    "hidden-rows",
    "spherical",
    "softermax-hidden-rows",
    "softermax-cubed",
)


@pytest.mark.parametrize("case_id", DIFFERENTIABLE)
@BOTH
def test_gradients_match_finite_differences(case_id: str, op: Callable[..., Tensor]) -> None:
    q, k, v, mask, _, *rest = attention_case(case_id).arguments(torch.float64)
    tensors = [t[:, :, :5].clone().requires_grad_() for t in (q, k, v)]
    mask = None if mask is None else mask[..., :5, :5]
    assert torch.autograd.gradcheck(
        lambda q, k, v: op(q, k, v, mask, 0.1, *rest), tensors, fast_mode=True
    )


@BOTH
def test_an_additive_mask_receives_gradients(op: Callable[..., Tensor]) -> None:
    q, k, v, mask, *rest = attention_case("mask-additive").arguments(torch.float64)
    mask = mask.clamp_min(-3).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: op(q, k, v, m, *rest), mask, fast_mode=True)


@pytest.mark.parametrize("case_id", HIDING)
def test_queries_that_see_no_key_give_finite_gradients(case_id: str) -> None:
    q, k, v, *rest = attention_case(case_id).arguments()
    tensors = [t.requires_grad_() for t in (q, k, v)]
    grads = torch.autograd.grad(yat_attention(*tensors, *rest).sum(), tensors)
    assert all(g.isfinite().all() for g in grads)


def test_epsilon_and_scale_receive_gradients() -> None:
    tensors = attention_case("causal-with-earlier-keys").tensors(torch.float64)
    scalars = [torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (0.3, -0.8)]
    assert torch.autograd.gradcheck(lambda e, s: yat_attention(*tensors, e, s, True), scalars)


@pytest.mark.parametrize("case_id", ["plain", "mask-of-keys", "one-key-head", "softermax-cubed"])
def test_the_torch_op_keeps_the_rules_of_custom_ops(case_id: str) -> None:
    q, k, v, *rest = attention_case(case_id).arguments()
    torch.library.opcheck(TORCH_OP.default, (q.requires_grad_(), k, v.requires_grad_(), *rest))


def test_the_torch_op_computes_the_eager_formula() -> None:
    for case in ATTENTION_CASES:
        arguments = case.arguments(torch.bfloat16)
        assert torch.equal(TORCH_OP(*arguments), yat_attention(*arguments)), case.id


def test_the_shape_rule_agrees_with_the_result() -> None:
    for case in ATTENTION_CASES:
        arguments = case.arguments(torch.float16)
        expected = yat_attention(*arguments)
        with FakeTensorMode() as mode:
            fake = [mode.from_tensor(a) if isinstance(a, Tensor) else a for a in arguments]
            y = TORCH_OP(*fake)
        assert (y.shape, y.dtype) == (expected.shape, expected.dtype), case.id


@pytest.mark.parametrize(
    ("k", "v", "message"),
    [
        ((1, 2, 5, 7), (1, 2, 5, 4), "q has 8 features, and k 7"),
        ((1, 2, 5, 8), (1, 2, 6, 4), "there are 5 keys, and 6 values"),
    ],
)
def test_the_shape_rule_refuses_sizes_that_contradict_each_other(
    k: tuple[int, ...], v: tuple[int, ...], message: str
) -> None:
    with FakeTensorMode(), pytest.raises(ValueError, match=message):
        TORCH_OP(
            *(torch.empty(s) for s in ((1, 2, 3, 8), k, v)), None, 1e-5, 1.0, False, False, 0.0, 0.0
        )


@pytest.mark.parametrize(
    "options", [{}, {"scale": -0.7}, {"epsilon": 0.2}, {"spherical": True}], ids=str
)
@pytest.mark.parametrize("case_id", ["odd-sizes", "hidden-rows"])
def test_it_computes_what_the_nmn_package_does(options: dict[str, float], case_id: str) -> None:
    nmn = pytest.importorskip("nmn.torch.attention")
    q, k, v, added = attention_case(case_id).tensors()
    mask = None if added is None else added == 0
    tensors = [t.transpose(1, 2) for t in (q, k, v)]
    expected = nmn.yat_attention(*tensors, mask=mask, training=False, **options)
    scale = options.get("scale", 1.0) / math.sqrt(q.shape[-1])
    y = yat_attention(q, k, v, added, **options | {"scale": scale}).transpose(1, 2)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
