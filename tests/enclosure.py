"""Bounds on the result of a correct program for any inputs."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nmn_export.ops import exact_yat_conv, exact_yat_conv_transpose, exact_yat_dense
from nmn_export.ops.yat import compute_dtype, unit_rows
from tests.cases import Case, ConvCase, ConvTransposeCase, DenseCase

UNITS = 16.0
"""Largest rounding error of sums of products, in units of (‖x‖² + ‖w‖²) u."""

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@dataclass(frozen=True)
class Parts:
    """The terms of the ⵟ-product, in float64."""

    exact: Tensor
    dot: Tensor
    x_sq: Tensor
    w_sq: Tensor
    bias: Tensor | float


def assert_near_exact(
    y: Tensor,
    case: Case,
    arguments: tuple[object, ...],
    *,
    bias_in_distance: bool = False,
) -> None:
    """Fail unless rounding can explain every element of `y`.

    With D known to 16 u (‖x‖² + ‖w‖²) and s + b to 16 u (‖x‖ ‖w‖ + |b|), y lies in an interval,
    which is narrow wherever D + ε is not small beside ‖x‖² + ‖w‖², and never reaches infinity.

    Args:
        y: What was computed.
        case: What was asked for.
        arguments: Those of the torch op, in the dtype of `y`.
        bias_in_distance: Whether the program adds the bias before it takes the dot product from
            the norms, so that the distance has no more digits than the bias leaves it.
    """
    assert_between(y, *bounds(y.dtype, case, arguments, bias_in_distance=bias_in_distance))


def assert_between(y: Tensor, low: Tensor, exact: Tensor, high: Tensor) -> None:
    """Fail unless every element of `y` is between the bounds, which `bounds` or `enclose` gives."""
    assert y.shape == exact.shape
    wrong = ~((low <= y.double()) & (y.double() <= high))
    if wrong.any():
        at = tuple(wrong.nonzero()[0].tolist())
        raise AssertionError(
            f"{int(wrong.sum())} of {y.numel()} elements are too far from exact; at {at} "
            f"{y[at].item():.9g} is not in [{low[at].item():.9g}, {high[at].item():.9g}], "
            f"exact is {exact[at].item():.9g}"
        )


def bounds(
    dtype: torch.dtype,
    case: Case,
    arguments: tuple[object, ...],
    *,
    bias_in_distance: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the smallest, the exact and the largest output, in float64."""
    return enclose(dtype, _PARTS[type(case)](arguments), case.epsilon, case.alpha, bias_in_distance)


def enclose(
    dtype: torch.dtype,
    parts: Parts,
    epsilon: float,
    alpha: float,
    bias_in_distance: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the smallest, the exact and the largest output for given terms, in float64."""
    low, high = _interval(dtype, parts, epsilon, alpha, bias_in_distance)
    assert (
        ((low <= parts.exact) & (parts.exact <= high))
        .logical_or(parts.exact.abs() > torch.finfo(dtype).max)
        .all()
    ), "the interval is wrong: the exact value is not in it"
    return low, parts.exact, high


def _interval(
    dtype: torch.dtype, parts: Parts, epsilon: float, alpha: float, bias_in_distance: bool
) -> tuple[Tensor, Tensor]:
    u = UNITS * torch.finfo(compute_dtype(dtype)).eps
    norms = parts.x_sq + parts.w_sq
    bias = torch.as_tensor(parts.bias).abs()
    distance = (norms - 2 * parts.dot).clamp_min(0)
    distance_error = u * (norms + (2 * bias if bias_in_distance else 0))
    numerator = (parts.dot + parts.bias).abs()
    numerator_error = u * ((parts.x_sq * parts.w_sq).sqrt() + bias)

    least = (numerator - numerator_error).clamp_min(0).square()
    most = (numerator + numerator_error).square()
    least = least / (distance + distance_error + epsilon)
    most = most / ((distance - distance_error).clamp_min(0) + epsilon)

    rounding = u + 2 * torch.finfo(dtype).eps
    least, most = abs(alpha) * least * (1 - rounding), abs(alpha) * most * (1 + rounding)
    low, high = (-most, -least) if alpha < 0 else (least, most)
    smallest, largest = torch.finfo(dtype).tiny, torch.finfo(dtype).max
    return (low - smallest).clamp(-largest, largest), (high + smallest).clamp(-largest, largest)


def _dense_parts(arguments: tuple[object, ...]) -> Parts:
    x, weight, bias, *_, spherical = arguments
    x64, w64 = x.double(), weight.double()
    b = 0.0 if bias is None else bias.double()
    if spherical:
        x64, w64 = unit_rows(x64), unit_rows(w64)
        x_sq = w_sq = torch.ones((), dtype=torch.float64)
    else:
        x_sq, w_sq = x64.square().sum(-1, keepdim=True), w64.square().sum(-1)
    return Parts(exact_yat_dense(*arguments), F.linear(x64, w64), x_sq, w_sq, b)


def _conv_parts(arguments: tuple[object, ...]) -> Parts:
    x, weight, bias, _, _, strides, pads, dilations, group = arguments
    rank = len(strides)
    padding = [p for i in reversed(range(rank)) for p in (pads[i], pads[rank + i])]
    x64, w64 = F.pad(x.double(), padding), weight.double()

    def convolve(t: Tensor, filters: Tensor) -> Tensor:
        result: Tensor = _CONVOLUTIONS[rank](t, filters, None, strides, 0, dilations, group)
        return result

    per_channel = (-1, *[1] * rank)
    return Parts(
        exact_yat_conv(*arguments),
        convolve(x64, w64),
        convolve(x64.square(), torch.ones_like(w64)),
        w64.square().flatten(1).sum(1).reshape(per_channel),
        0.0 if bias is None else bias.double().reshape(per_channel),
    )


def _conv_transpose_parts(arguments: tuple[object, ...]) -> Parts:
    x, weight, bias, _, _, strides, pads, dilations, output_padding, group = arguments
    rank = len(strides)
    after = [extra - p for extra, p in zip(output_padding, pads[rank:], strict=True)]
    ends = [p for i in reversed(range(rank)) for p in (-pads[i], after[i])]
    x64, w64 = x.double(), weight.double()

    def convolve(t: Tensor, filters: Tensor) -> Tensor:
        y = _TRANSPOSED[rank](t, filters, None, strides, 0, 0, group, dilations)
        return F.pad(y, ends)

    per_channel = (-1, *[1] * rank)
    w_sq = w64.square().reshape(group, -1, *weight.shape[1:]).sum(1).flatten(2).sum(2)
    return Parts(
        exact_yat_conv_transpose(*arguments),
        convolve(x64, w64),
        convolve(x64.square(), torch.ones_like(w64)),
        w_sq.reshape(per_channel),
        0.0 if bias is None else bias.double().reshape(per_channel),
    )


_PARTS = {
    DenseCase: _dense_parts,
    ConvCase: _conv_parts,
    ConvTransposeCase: _conv_transpose_parts,
}
