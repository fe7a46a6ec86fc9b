import nmn.torch as upstream
import pytest
import torch
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.layers import linear_attention as layer
from nmn_export.layers.feature_maps import MaclaurinFeatures
from nmn_export.layers.linear_attention import (
    LinearYatAttention,
    linear_attention_readout,
    maclaurin_features,
    maclaurin_yat_attention,
    radial_features,
    radial_yat_attention,
)
from nmn_export.layers.projections import create_maclaurin_projection

DIM = 6


def tensors(queries: int = 70, keys: int = 70) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, k and v in upstream's layout, [batch, length, heads, features]."""
    random = torch.Generator().manual_seed(queries)
    sizes = ((queries, DIM), (keys, DIM), (keys, 4))
    return tuple(torch.randn(2, length, 3, size, generator=random) for length, size in sizes)


@pytest.mark.parametrize("causal", [False, True])
def test_upstreams_functions_give_upstreams_results(causal: bool) -> None:
    q, k, v = tensors() if causal else tensors(queries=5)
    may = upstream.create_maclaurin_projection(DIM, 32, epsilon=0.5, seed=0)
    ray = upstream.create_radial_projection(DIM, 4, 2, 8, epsilon=0.5, seed=0)
    # In float64, because their denominators are close to zero here and there.
    q, k, v = q.double(), k.double(), v.double()
    for ours, theirs, projection in (
        (maclaurin_yat_attention, upstream.maclaurin_yat_attention, may),
        (radial_yat_attention, upstream.radial_yat_attention, ray),
    ):
        y = ours(q, k, v, projection, causal=causal, epsilon=1e-3)
        expected = theirs(q, k, v, projection, causal=causal, epsilon=1e-3)
        torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-8)


def test_upstreams_feature_functions_keep_upstreams_order() -> None:
    q, _, _ = tensors(queries=5)
    may = upstream.create_maclaurin_projection(DIM, 32, epsilon=0.5, seed=0)
    ray = upstream.create_radial_projection(DIM, 4, 2, 8, epsilon=0.5, seed=0)
    close = torch.testing.assert_close
    close(maclaurin_features(q, may), upstream.maclaurin_features(q, may), rtol=1e-4, atol=1e-5)
    close(radial_features(q, ray), upstream.radial_features(q, ray), rtol=1e-4, atol=1e-5)


def test_the_readout_is_that_of_upstream() -> None:
    from nmn.torch.attention import linear_attention_readout as theirs  # noqa: PLC0415

    qf, kf, v = (t.abs() for t in tensors())
    for causal in (False, True):
        torch.testing.assert_close(
            linear_attention_readout(qf, kf, v, causal, 1e-3), theirs(qf, kf, v, causal, 1e-3)
        )


@pytest.fixture
def attention() -> LinearYatAttention:
    projection = create_maclaurin_projection(DIM, 32, epsilon=0.5, seed=1)
    return LinearYatAttention(MaclaurinFeatures(projection), causal=True, signed=True)


def heads_first() -> tuple[Tensor, ...]:
    return tuple(t.double().transpose(1, 2) for t in tensors())


def test_steps_give_what_the_whole_sequence_gives(attention: LinearYatAttention) -> None:
    q, k, v = heads_first()
    expected = attention(q, k, v)
    state, outputs = attention.initial_state(v[..., 0, :]), []
    for i in range(v.shape[-2]):
        out, state = attention.step(q[..., i, :], k[..., i, :], v[..., i, :], state)
        outputs.append(out)
    torch.testing.assert_close(torch.stack(outputs, -2), expected, rtol=1e-6, atol=1e-8)


def test_hidden_keys_are_left_out(attention: LinearYatAttention) -> None:
    attention.causal = False
    q, k, v = heads_first()
    mask = torch.rand(2, 1, 1, 70, generator=torch.Generator().manual_seed(0)) < 0.5
    y = attention(q, k, v, mask)
    for sequence in range(2):
        seen = mask[sequence, 0, 0]
        alone = attention(q[sequence], k[sequence][:, seen], v[sequence][:, seen])
        torch.testing.assert_close(y[sequence], alone)


def test_keys_that_are_all_hidden_give_zeros(attention: LinearYatAttention) -> None:
    q, k, v = heads_first()
    assert (attention(q, k, v, torch.zeros(1, 1, 70, dtype=torch.bool)) == 0).all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(70, 70, dtype=torch.bool), r"the same for all queries; got shape \(1, 1, 70"),
        (torch.ones(69, dtype=torch.bool), r"mask must broadcast to the scores"),
        (torch.full((1, 70), -torch.inf), r"mask says where to attend, so its numbers are 0 and"),
    ],
)
def test_masks_that_linear_attention_cannot_have_are_refused(
    attention: LinearYatAttention, mask: Tensor, message: str
) -> None:
    with pytest.raises(NmnExportError, match=message):
        attention(*heads_first(), mask)


def test_a_causal_form_has_as_many_queries_as_keys(attention: LinearYatAttention) -> None:
    q, k, v = heads_first()
    with pytest.raises(NmnExportError, match=r"got 1 queries and 70 keys\. Use step\(\)"):
        attention(q[..., :1, :], k, v)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_state_in_float32(
    attention: LinearYatAttention, dtype: torch.dtype
) -> None:
    q, k, v = (t.to(dtype) for t in heads_first())
    expected = attention(q.float(), k.float(), v.float()).to(dtype)
    y = attention(q, k, v)
    assert torch.equal(y, expected)
    state = attention.initial_state(v[..., 0, :])
    out, state = attention.step(q[..., 0, :], k[..., 0, :], v[..., 0, :], state)
    assert out.dtype == dtype
    assert {t.dtype for t in state} == {torch.float32}


def test_the_torch_op_is_used_where_it_has_a_kernel(
    attention: LinearYatAttention, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = heads_first()
    expected, calls = attention(q, k, v), []
    op = torch.ops.nmn.causal_linear_attention
    monkeypatch.setattr(layer, "has_kernels", lambda _: calls.append("asked") or True)
    monkeypatch.setattr(
        torch.ops.nmn, "causal_linear_attention", lambda *a: calls.append(a) or op(*a)
    )
    assert torch.equal(attention(q, k, v), expected)
    assert len(calls) == 2
    learned = torch.tensor([1e-5], requires_grad=True, dtype=torch.float64)
    attention(q, k, v, epsilon=learned).sum().backward()
    assert learned.grad is not None
    assert len(calls) == 2, "the op takes numbers only"
