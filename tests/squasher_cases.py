"""Cases of softermax, softer_sigmoid and soft_tanh: edge values and powers."""

import torch
from torch import Tensor

from nmn_export.layers import soft_tanh, softer_sigmoid

ELEMENTWISE = {"softer_sigmoid": softer_sigmoid, "soft_tanh": soft_tanh}

POWERS = (1, 1.0, 2, 2.0, 3, 4, 7, 0.5, 0.25, 1 / 3, 1.5, 2.5)

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

_SIZES = [0.0, 1e-45, 1e-30, 1e-7, 1e-3, 0.1, 0.5, 1, 1.5, 2, 3, 10, 100, 256, 300]
_HUGE = [65504, 1e10, 1e19, 2e19, 1e30, 3e38, float("inf")]

_ROWS = [
    [0, 0, 0],
    [0, -0.0, -0.0],
    [1, 2, 3],
    [-1, 1, 0],
    [-1, 2, 0.5],
    [-0.0, 1, 2],
    [-300, 2, 1],
    [300, 200, 1],
    [1e20, 1, 1],
    [1e20, 1e20, 0],
    [3e38, 3e38, 1],
    [1e-7, 1e-8, 0],
    [1e-30, 1e-30, 0],
    [float("inf"), 1, 2],
    [float("inf"), float("inf"), 0],
    [-float("inf"), 1, 2],
    [float("nan"), 1, 2],
]


def edge_values(dtype: torch.dtype) -> Tensor:
    """Return zeros, small, usual and huge numbers of both signs, infinities and NaN."""
    positive = torch.tensor(_SIZES + _HUGE)
    return torch.cat([positive, -positive, torch.tensor([float("nan")])]).to(dtype)


def edge_rows(dtype: torch.dtype) -> Tensor:
    """Return rows of such numbers, [N, 3]."""
    return torch.tensor(_ROWS).to(dtype)


def assert_same_to_rounding(y: Tensor, expected: Tensor, units: float) -> None:
    """Fail unless signs, NaN and infinities are the same, and numbers differ by a few units.

    Args:
        y: What was computed.
        expected: What it should be.
        units: Largest relative difference, in units of the last place of 1. For a number below 1,
            such as the difference of numbers near 1, it is the absolute difference.
    """
    assert (y.dtype, y.shape) == (expected.dtype, expected.shape)
    assert torch.equal(y.isnan(), expected.isnan())
    a, b = (torch.where(t.isnan(), 0, t.double()) for t in (y, expected))
    assert torch.equal(a.isinf(), b.isinf())
    assert torch.equal(torch.signbit(a), torch.signbit(b))
    a, b = (torch.where(t.isinf(), 0, t) for t in (a, b))
    step = units * torch.finfo(y.dtype).eps
    assert ((a - b).abs() <= step * b.abs().clamp_min(1)).all()
