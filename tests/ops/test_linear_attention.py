import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from nmn_export.ops.linear_attention import (
    CHUNK,
    LinearState,
    causal_linear_attention,
    exact_linear_attention,
    linear_attention,
    linear_attention_step,
    state_after,
)
from tests.cases import (
    LINEAR_ATTENTION_CASES,
    LinearAttentionCase,
    linear_attention_case,
    with_dtypes,
)
from tests.cases.linear_attention import assert_near_exact

TORCH_OP = torch.ops.nmn.causal_linear_attention

ALL = with_dtypes(LINEAR_ATTENTION_CASES, torch.float16, torch.bfloat16, torch.float64)


def empty(case: LinearAttentionCase, dtype: torch.dtype = torch.float32) -> LinearState:
    kv = torch.zeros(*case.lead, case.features, case.value_features, dtype=dtype)
    return LinearState(kv, torch.zeros(*case.lead, case.features, dtype=dtype))


def literal(
    qf: Tensor, kf: Tensor, v: Tensor, epsilon: float, signed: bool, causal: bool
) -> Tensor:
    """The definition in plain loops, for [L, M] and [L, E]."""
    rows = []
    for i, query in enumerate(qf.tolist()):
        keys = range(i + 1 if causal else len(kf))
        weights = [
            math.fsum(a * b for a, b in zip(query, kf[j].tolist(), strict=True)) for j in keys
        ]
        total = math.fsum(weights)
        guarded = total - epsilon if signed and total < 0 else total + epsilon
        columns = v[: len(weights)].T.tolist()
        rows.append(
            [
                math.fsum(w * x for w, x in zip(weights, column, strict=True)) / guarded
                for column in columns
            ]
        )
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("case_id", ["plain", "signed", "hidden-keys"])
@pytest.mark.parametrize("causal", [True, False])
def test_exact_is_the_definition(case_id: str, causal: bool) -> None:
    qf, kf, v, epsilon, signed = linear_attention_case(case_id).arguments(torch.float64)
    exact = exact_linear_attention(qf, kf, v, epsilon, signed, causal)
    expected = literal(qf[0, 0], kf[0, 0], v[0, 0], epsilon, signed, causal)
    torch.testing.assert_close(exact[0, 0], expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("case", "dtype"), ALL)
def test_the_causal_form_is_near_exact(case: LinearAttentionCase, dtype: torch.dtype) -> None:
    arguments = case.arguments(dtype)
    assert_near_exact(causal_linear_attention(*arguments), arguments)


@pytest.mark.parametrize(("case", "dtype"), ALL)
def test_attention_to_all_keys_is_near_exact(case: LinearAttentionCase, dtype: torch.dtype) -> None:
    arguments = case.arguments(dtype)
    assert_near_exact(linear_attention(*arguments), arguments, causal=False)


@pytest.mark.parametrize("case_id", ["plain", "one-past-a-chunk", "signed", "hidden-keys"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_steps_are_near_exact(case_id: str, dtype: torch.dtype) -> None:
    case = linear_attention_case(case_id)
    qf, kf, v, epsilon, signed = case.arguments(dtype)
    state = empty(case, torch.float64 if dtype == torch.float64 else torch.float32)
    outputs = []
    for i in range(case.length):
        out, state = linear_attention_step(
            qf[..., i, :], kf[..., i, :], v[..., i, :], state, epsilon, signed
        )
        outputs.append(out)
    assert_near_exact(torch.stack(outputs, -2), (qf, kf, v, epsilon, signed))
    after = state_after(kf, v)
    for stepped, summed in zip(state, after, strict=True):
        assert stepped.dtype == summed.dtype
        torch.testing.assert_close(stepped, summed, rtol=1e-5, atol=1e-4)


def test_the_measure_rejects_weights_in_half_precision() -> None:
    arguments = linear_attention_case("plain").arguments()
    qf, *rest = arguments
    y = causal_linear_attention(qf.half().float(), *rest)
    with pytest.raises(AssertionError, match="elements are too far from exact"):
        assert_near_exact(y, arguments)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    length=st.integers(2, 3 * CHUNK),
    later=st.floats(0, 1),
    size=st.sampled_from([1.0, 1e-20, 1e15]),
    signed=st.booleans(),
    changed=st.sampled_from(["queries", "keys", "values"]),
)
def test_a_later_token_does_not_change_one_bit(
    length: int, later: float, size: float, signed: bool, changed: str
) -> None:
    torch.manual_seed(length)
    first = max(1, min(length - 1, round(later * length)))
    tensors = [torch.randn(2, length, 5), torch.randn(2, length, 5), torch.randn(2, length, 3)]
    before = causal_linear_attention(*tensors, 1e-5, signed)
    index = ("queries", "keys", "values").index(changed)
    tensors[index][:, first:] = size * torch.randn_like(tensors[index][:, first:])
    after = causal_linear_attention(*tensors, 1e-5, signed)
    assert torch.equal(before[:, :first], after[:, :first])
    assert not torch.equal(before[:, first:], after[:, first:])


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any op returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_no_tensor_of_all_pairs_or_of_all_products_is_made() -> None:
    length, features, values = 40 * CHUNK, 32, 48
    tensors = torch.rand(length, features), torch.rand(length, features), torch.rand(length, values)
    with LargestTensor() as largest:
        causal_linear_attention(*tensors)
    assert largest.elements <= length * CHUNK
    assert largest.elements < length * features * values / 8


@pytest.mark.parametrize("length", [0, 3])
def test_an_empty_sequence_or_batch_gives_an_empty_result(length: int) -> None:
    qf, v = torch.rand(2 if length == 0 else 0, 4, length, 6), torch.rand(1, 4, length, 5)
    v = v[: len(qf)].expand(len(qf), 4, length, 5)
    for op in (causal_linear_attention, linear_attention, TORCH_OP):
        assert op(qf, qf, v, 1e-5, False).shape == v.shape


def test_hidden_keys_alone_give_zeros() -> None:
    case = linear_attention_case("hidden-keys")
    y = causal_linear_attention(*case.arguments())
    assert (y[..., : case.hidden, :] == 0).all()
    assert (y[..., case.hidden :, :] != 0).all()


def test_half_precisions_saturate() -> None:
    one = torch.ones(1, 2, 1, dtype=torch.float16)
    v = torch.full((1, 2, 1), 6e4, dtype=torch.float16)
    assert causal_linear_attention(one, one, v, -0.5).flatten().tolist() == [65504.0, 65504.0]


@pytest.mark.parametrize("op", [causal_linear_attention, TORCH_OP], ids=["eager", "torch-op"])
@pytest.mark.parametrize("signed", [True, False])
def test_gradients_match_finite_differences(op: object, signed: bool) -> None:
    torch.manual_seed(0)
    tensors = [torch.rand(1, 3, 2), torch.rand(1, 3, 2), torch.randn(1, 3, 2)]
    tensors = [t.double().requires_grad_() for t in tensors]
    assert torch.autograd.gradcheck(lambda *t: op(*t, 0.1, signed), tensors)


def test_the_torch_op_keeps_the_rules_of_custom_ops() -> None:
    qf, *rest = linear_attention_case("shorter-than-a-chunk").arguments()
    torch.library.opcheck(TORCH_OP.default, (qf.requires_grad_(), *rest))


def test_the_torch_op_computes_the_eager_formula_in_the_shape_it_promises() -> None:
    for case in LINEAR_ATTENTION_CASES:
        arguments = case.arguments(torch.bfloat16)
        y = TORCH_OP(*arguments)
        assert torch.equal(y, causal_linear_attention(*arguments)), case.id
        with FakeTensorMode() as mode:
            fake = [mode.from_tensor(a) if isinstance(a, Tensor) else a for a in arguments]
            promised = TORCH_OP(*fake)
        assert (promised.shape, promised.dtype) == (y.shape, y.dtype), case.id
