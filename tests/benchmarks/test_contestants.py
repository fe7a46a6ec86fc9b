"""The twins of a network of ⵟ layers, which the CPU benchmark times beside it."""

import pytest
import torch
from torch import nn

from benchmarks.contestants import linear_twin, upstream_twin
from nmn_export.layers import YatConv2d, YatConvTranspose1d, YatConvTranspose2d, YatDense

LAYERS = {
    "dense": (lambda: YatDense(6, 4), (3, 6), nn.Linear),
    "conv": (lambda: YatConv2d(4, 6, 3, 2, 1, groups=2, bias=False), (2, 4, 7, 7), nn.Conv2d),
    "transposed": (
        lambda: YatConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2, constant_alpha=True),
        (2, 4, 5, 5),
        nn.ConvTranspose2d,
    ),
    "transposed 1-D": (lambda: YatConvTranspose1d(4, 6, 4, 2), (2, 4, 5), nn.ConvTranspose1d),
}


@pytest.mark.parametrize(("make", "shape", "kind"), LAYERS.values(), ids=LAYERS)
def test_twins_have_the_geometry_of_the_network_and_upstreams_twin_its_values(make, shape, kind):
    torch.manual_seed(0)
    model, x = nn.Sequential(make()).eval(), torch.randn(shape)
    y = model(x)
    linear, upstream = linear_twin(model), upstream_twin(model)
    assert type(linear[0]) is kind
    assert linear(x).shape == y.shape
    assert type(upstream[0]).__module__.startswith("nmn.")
    torch.testing.assert_close(upstream(x), y, rtol=1e-5, atol=1e-6)
