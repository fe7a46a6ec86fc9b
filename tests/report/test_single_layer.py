"""Inputs near the filters of a transposed convolution, which meets some taps at each output."""

import itertools

import pytest
import torch

from nmn_export import check, export
from nmn_export.graph.fold import fold
from nmn_export.layers import YatConvTranspose1d, YatConvTranspose2d, YatConvTranspose3d
from nmn_export.ops import OPS
from nmn_export.ops.conv_transpose import filters_of
from nmn_export.report.single_layer import LayerOp, near_prototypes

TRANSPOSED = [
    YatConvTranspose1d(4, 6, 4, padding=1),
    YatConvTranspose1d(4, 6, 4, stride=2, padding=2),
    YatConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
    YatConvTranspose2d(2, 40, (3, 2), stride=(1, 3), dilation=(2, 1), padding=(2, 0)),
    YatConvTranspose2d(3, 4, (1, 2), stride=3),
    YatConvTranspose3d(2, 3, 3, stride=(2, 1, 3), dilation=(1, 2, 2), padding=1),
]


@pytest.mark.parametrize("layer", TRANSPOSED, ids=str)
@pytest.mark.parametrize("one_phase", [False, True], ids=["all-taps", "one-phase"])
def test_probes_of_a_transposed_convolution_come_as_close_as_pixels_can(layer, one_phase):
    """For each filter there is a patch that is the filter at the taps that one output meets."""
    folded = fold(torch.nn.Sequential(layer))[0]
    folded.epsilon = 1e-9
    largest = torch.zeros(layer.out_channels, dtype=torch.float64)  # ‖w‖² at the taps of a phase
    for phase in itertools.product(*map(range, layer.stride)):
        weight = filters_of(folded.weight.double(), layer.groups)
        for axis, (k, s, d, r) in enumerate(
            zip(layer.kernel_size, layer.stride, layer.dilation, phase, strict=True)
        ):
            met = torch.tensor([t * d % s == r for t in range(k)])
            weight = weight * met.reshape(-1, *[1] * (layer.rank - 1 - axis))
        if one_phase and not any(phase):
            # Other taps are zero, so that a patch can equal the filter.
            folded.weight.copy_(_as_weights(weight, layer.groups))
        largest = torch.maximum(largest, weight.flatten(1).square().sum(1))
    w_sq = filters_of(folded.weight.double(), layer.groups).flatten(1).square().sum(1)
    x = near_prototypes(folded, 0)
    with torch.no_grad():
        geometry = (folded.strides, folded.pads, folded.dilations, folded.output_padding)
        exact = OPS["YatConvTranspose"].exact
        y = exact(x, folded.weight, None, folded.epsilon, 1.0, *geometry, folded.group)
        assert LayerOp(folded)(x).shape == y.shape
    reached = y.movedim(1, 0).flatten(1).max(1).values
    # At a distance of 1 % from those taps. The rest of the filter is farther away.
    closest = largest.square() / (w_sq - largest + 1e-3 * w_sq)
    assert (reached > 0.5 * closest).all()


def _as_weights(filters, groups):
    """Return filters [O, C / groups, *K] as weights [C, O / groups, *K]."""
    return torch.cat([part.transpose(0, 1) for part in filters.chunk(groups)])


def test_an_output_size_of_a_call_is_that_of_its_probe(tmp_path):
    class Doubled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.up = YatConvTranspose2d(3, 3, 3, stride=2, padding=1)

        def forward(self, x):
            return self.up(x, output_size=(8, 10))

    model, path = Doubled(), tmp_path / "m.onnx"
    export(model, torch.randn(2, 3, 4, 5), path)
    comparisons = check(path, model)
    assert {c.subject for c in comparisons} == {"model", "up"}
    assert all(c.passed for c in comparisons)
