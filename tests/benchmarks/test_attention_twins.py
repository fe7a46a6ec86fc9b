"""The attentions that the CPU benchmark times compute what they are compared for."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks.attention_twins import AttentionOnly
from benchmarks.contestants import linear_twin, upstream_twin
from nmn_export.layers import MultiHeadYatAttention

SUBJECTS = {
    "layer": (lambda causal: MultiHeadYatAttention(12, 3, is_causal=causal), (2, 5, 12)),
    "alone": (AttentionOnly, (3, 2, 5, 3, 4)),
}


@pytest.mark.parametrize(("make", "shape"), SUBJECTS.values(), ids=SUBJECTS)
@pytest.mark.parametrize("causal", [False, True])
def test_the_twin_of_upstream_computes_the_same(make, shape, causal) -> None:
    pytest.importorskip("nmn.torch")
    torch.manual_seed(0)
    model, x = make(causal).eval(), torch.randn(shape)
    torch.testing.assert_close(upstream_twin(model)(x), model(x))


@pytest.mark.parametrize(("make", "shape"), SUBJECTS.values(), ids=SUBJECTS)
def test_the_linear_twin_is_softmax_attention_of_the_same_shape(make, shape) -> None:
    torch.manual_seed(0)
    model, x = make(True).eval(), torch.randn(shape)
    twin = linear_twin(model)
    assert twin(x).shape == model(x).shape
    assert not torch.allclose(twin(x), model(x))
    if shape[0] == 3:
        q, k, v = (t.transpose(1, 2) for t in x)
        expected = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        torch.testing.assert_close(twin(x), expected)
    else:
        assert {n: p.shape for n, p in twin.named_parameters()} == {
            n: p.shape for n, p in model.named_parameters() if n != "alpha"
        }
