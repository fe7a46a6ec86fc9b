"""`MultiHeadYatAttention` of all releases, with random options."""

from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from nmn_export import check, export
from nmn_export.adapt import adapt
from nmn_export.errors import NmnExportError
from nmn_export.layers import MultiHeadYatAttention
from tests.adapt.agreement import assert_same_tensors
from tests.adapt.conftest import at_least
from tests.adapt.test_nmn_torch import drawn, half_tolerance, refusal

OPTIONS = st.fixed_dictionaries(
    {
        "dropout": st.sampled_from([0.0, 0.3]),
        "bias": st.booleans(),
        "use_alpha": st.booleans(),
        "constant_alpha": st.none() | st.booleans() | st.floats(-2, 2, width=32),
        "normalize_qk": st.booleans(),
        "spherical": st.booleans(),
        "use_out_proj": st.booleans(),
        "epsilon": st.sampled_from([1e-5, 0.007, 2.0]),
        "dtype": st.sampled_from([None, torch.float32, torch.float64]),
    }
)


@torch.no_grad()
def trained(layer: nn.Module) -> nn.Module:
    """Move parameters away from their initial values."""
    for parameter in layer.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return layer.eval()


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    assert ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@given(data=st.data())
@drawn
def test_options_inputs_and_masks(nmn_torch: ModuleType, data: st.DataObject) -> None:
    options = data.draw(OPTIONS)
    heads, width = data.draw(st.sampled_from([(1, 5), (2, 4), (4, 2)]))
    embed = heads * width
    torch.manual_seed(data.draw(st.integers(0, 2**16)))
    theirs = trained(nmn_torch.MultiHeadYatAttention(embed, heads, **options))
    ours = adapt(theirs)
    assert type(ours) is MultiHeadYatAttention
    assert_same_tensors(ours, theirs)
    assert ours.dropout == theirs.dropout
    batch, queries, keys = (data.draw(st.integers(1, n)) for n in (3, 6, 6))
    x = [torch.randn(batch, queries, embed, dtype=options["dtype"])]
    for _ in range(data.draw(st.integers(0, 2))):
        x.append(torch.randn(batch, keys, embed, dtype=options["dtype"]))
    mask = torch.rand(batch, heads, queries, x[-1].shape[1]) < 0.6
    mask[..., 0] = True
    shapes = [mask, mask[:, :1], mask[:1, :1, :1], mask[0, 0], None]
    mask = data.draw(st.sampled_from(shapes))
    with torch.no_grad():
        assert_close(ours(*x, mask=mask), theirs(*x, mask=mask))
        assert_close(ours(*x, mask=mask, deterministic=True), theirs(*x, mask=mask))


def test_a_query_that_sees_no_key(nmn_torch: ModuleType, release: str) -> None:
    torch.manual_seed(0)
    theirs = trained(nmn_torch.MultiHeadYatAttention(8, 2))
    x, mask = torch.randn(1, 4, 8), torch.rand(1, 2, 4, 4) < 0.5
    mask[..., 0] = True
    mask[:, :, 2] = False
    with torch.no_grad():
        found, expected = adapt(theirs)(x, mask=mask), theirs(x, mask=mask)
    assert not found[:, 2].any()
    assert expected[:, 2].isnan().all() == (not at_least(release, "0.3.3"))
    others = [0, 1, 3]
    assert_close(found[:, others], expected[:, others])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(nmn_torch: ModuleType, release: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    theirs = trained(nmn_torch.MultiHeadYatAttention(16, 2, dtype=dtype))
    x = torch.randn(2, 5, 16, dtype=dtype)
    tolerance = half_tolerance(release, dtype)
    with torch.no_grad():
        assert_close(adapt(theirs)(x), theirs(x), tolerance)


class Block(nn.Module):
    """Two attentions around one linear layer that they share, with a hook."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.first = attention(8, 2, constant_alpha=True)
        self.second = attention(8, 4, normalize_qk=True)
        self.second.v_proj = self.first.v_proj

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x), x)
        return y


def test_attentions_in_a_network_are_exported_and_checked(
    nmn_torch: ModuleType, tmp_path: Any
) -> None:
    torch.manual_seed(1)
    net, x = trained(Block(nmn_torch.MultiHeadYatAttention)), torch.randn(2, 5, 8)
    ours = adapt(net)
    assert_same_tensors(ours, net)
    seen: list[Tensor] = []
    net.first.register_forward_hook(lambda *a: seen.append(a[2]))
    with torch.no_grad():
        assert_close(adapt(net)(x), net(x))
    assert len(seen) == 2
    path = tmp_path / "m.onnx"
    export(net, x, path, dynamic_shapes={"x": {0: "batch", 1: "tokens"}})
    comparisons = check(path, net)
    assert {c.subject for c in comparisons} == {"model", "first", "second"}
    assert all(c.passed for c in comparisons)


class Adapted(nn.Linear):
    """A projection with another computation."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: setattr(m, "k_proj", Adapted(8, 8)), "got k_proj, a Adapted. Merge"),
        (lambda m: setattr(m, "out_proj", nn.Identity()), "got out_proj, a Identity. Merge"),
        (
            lambda m: m.v_proj.register_forward_hook(lambda *_: None),
            "got v_proj, a Linear with hooks. Merge",
        ),
        (lambda m: parametrizations.weight_norm(m.q_proj), "got q_proj, a ParametrizedLinear"),
        (lambda m: setattr(m, "gate", nn.Linear(8, 8)), "which also has gate. Use a plain"),
        (lambda m: setattr(m, "epsilon", 0.0), "epsilon must be positive and finite; got 0.0"),
        (lambda m: setattr(m, "forward", lambda x: x), "with a forward of its own. Put a plain"),
    ],
)
def test_what_ours_does_not_compute_is_refused(
    nmn_torch: ModuleType, change: Any, message: str
) -> None:
    layer = nmn_torch.MultiHeadYatAttention(8, 2)
    change(layer)
    assert message in refusal(nn.ModuleDict({"attn": layer}))
    assert "MultiHeadYatAttention at 'attn'" in refusal(nn.ModuleDict({"attn": layer}))


def test_a_release_without_a_constant_alpha_is_refused() -> None:
    class MultiHeadYatAttention(nn.Module):
        __module__ = "nmn.torch.attention"

    with pytest.raises(NmnExportError, match=r"releases up to 0\.2\.6 add the bias after dividing"):
        adapt(MultiHeadYatAttention())
