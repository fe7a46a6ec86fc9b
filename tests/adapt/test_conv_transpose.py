"""Transposed convolutions of `nmn.torch`, with random options."""

from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nmn_export.adapt import adapt
from nmn_export.layers import YatConvTranspose1d, YatConvTranspose2d, YatConvTranspose3d
from tests.adapt.agreement import assert_same
from tests.adapt.conftest import at_least
from tests.adapt.test_nmn_torch import (
    assert_equal_in_ours,
    draw_mask,
    draw_options,
    drawn,
    far_from_weights,
    half_tolerance,
    trained,
)

LAYERS = {1: YatConvTranspose1d, 2: YatConvTranspose2d, 3: YatConvTranspose3d}


def options_of(data: st.DataObject, cls: type, rank: int, release: str) -> dict[str, Any]:
    """Draw options of a transposed convolution that do not contradict each other."""

    def per_axis(low: int, high: int) -> st.SearchStrategy[tuple[int, ...]]:
        return st.tuples(*[st.integers(low, high)] * rank)

    # Releases before 0.3.0 raise in the forward pass of grouped layers.
    groups = data.draw(st.integers(1, 3)) if at_least(release, "0.3.0") else 1
    stride, dilation = data.draw(per_axis(1, 3)), data.draw(per_axis(1, 2))
    limits = [max(s, d) - 1 for s, d in zip(stride, dilation, strict=True)]
    own = {
        "in_channels": st.integers(1, 4).map(lambda n: n * groups),
        "out_channels": st.integers(1, 3).map(lambda n: n * groups),
        # Two ways to compute a sum differ more if it has more terms.
        "kernel_size": per_axis(1, 2 if rank == 3 else 3),
        "padding": per_axis(0, 1),
        "output_padding": st.tuples(*[st.integers(0, most) for most in limits]),
        "use_alpha": st.booleans(),
        "use_dropconnect": st.booleans(),
        "drop_rate": st.sampled_from([0.0, 0.3]),
    }
    return draw_options(data, cls, own) | {"groups": groups, "stride": stride, "dilation": dilation}


@pytest.mark.parametrize("rank", [1, 2, 3])
@given(data=st.data())
@drawn
def test_conv_transpose(
    nmn_torch: ModuleType, release: str, rank: int, data: st.DataObject
) -> None:
    build = getattr(nmn_torch, f"YatConvTranspose{rank}D")
    options = options_of(data, build, rank, release)
    torch.manual_seed(data.draw(st.integers(0, 2**16)))
    theirs = build(**options, mask=draw_mask(data, build(**options).weight.shape))
    ours = adapt(trained(theirs))
    assert type(ours) is LAYERS[rank]
    x_dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    x = far_from_weights(2, options["in_channels"], *(5, 4, 3)[:rank], dtype=x_dtype)
    assert_equal_in_ours(theirs, ours, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(nmn_torch: ModuleType, release: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tolerance = half_tolerance(release, dtype)
    options = {"stride": 2, "dtype": dtype, "param_dtype": torch.float32}
    theirs = trained(nmn_torch.YatConvTranspose2D(3, 4, 3, **options))
    x = far_from_weights(2, 3, 4, 4)
    with torch.no_grad():
        assert_same(adapt(theirs)(x), theirs(x), tolerance)


def test_an_output_size_may_be_asked_of_the_adapted_layer(nmn_torch: ModuleType) -> None:
    torch.manual_seed(0)
    theirs = trained(nmn_torch.YatConvTranspose2D(2, 3, 3, stride=3))
    ours, x = adapt(theirs), far_from_weights(1, 2, 4, 5)
    with torch.no_grad():
        for size in ([12, 16], [14, 17], [1, 3, 13, 15]):
            assert_same(ours(x, size), theirs(x, size))


def test_a_network_with_layers_that_upsample(nmn_torch: ModuleType) -> None:
    torch.manual_seed(0)
    theirs = nn.Sequential(
        nmn_torch.YatConv2D(2, 4, 3, stride=2, padding=1),
        nn.Sequential(nmn_torch.YatConvTranspose2D(4, 2, 4, stride=2, padding=1)),
    ).eval()
    ours = adapt(theirs)
    assert type(ours[1][0]) is YatConvTranspose2d
    assert ours[1][0].weight is theirs[1][0].weight
    x = torch.randn(2, 2, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-7)
