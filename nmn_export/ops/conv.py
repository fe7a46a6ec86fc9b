"""YatConv: the ⵟ-product of every patch with every filter, in one to three dimensions."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nmn_export.ops.autograd import register_autograd
from nmn_export.ops.spec import OpSpec
from nmn_export.ops.yat import Scalar, cast, compute_dtype, saturate, yat

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def yat_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    epsilon: Scalar = 1e-5,
    alpha: Scalar = 1.0,
    strides: Sequence[int] = (1,),
    pads: Sequence[int] = (0, 0),
    dilations: Sequence[int] = (1,),
    group: int = 1,
) -> Tensor:
    """Return α (⟨p, w⟩ + b)² / (‖p − w‖² + ε) over patches p, differentiable in every argument.

    Args:
        x: Input, [B, C, *S] with one to three spatial axes, of any floating dtype. float16 and
            bfloat16 are computed in float32, and the result saturates.
        weight: [O, C / group, *K], cast to the dtype of `x`.
        bias: [O] or [1].
        epsilon: ε > 0.
        alpha: α.
        strides: One per spatial axis.
        pads: Zeros before each spatial axis, then zeros after each, as in ONNX. ‖p‖² includes them
            as zeros. ‖w‖² is always that of the whole filter.
        dilations: One per spatial axis.
        group: Groups of channels.

    Returns:
        [B, O, *S'] in the dtype of `x`.
    """
    wide = compute_dtype(x.dtype)
    w = cast(cast(weight, x.dtype), wide)
    rank = w.ndim - 2
    x_wide, padding = cast(x, wide), tuple(pads[:rank])
    if padding != tuple(pads[rank:]):  # PyTorch pads both ends equally
        x_wide, padding = F.pad(x_wide, torch_padding(pads)), (0,) * rank
    convolve = _CONVOLUTIONS[rank]

    dot = convolve(x_wide, w, None, strides, padding, dilations, group)
    # The nmn package sums squares in this order, and adapted networks must give the same bits. The
    # ONNX body sums the channels first, which is cheaper and as accurate.
    ones = w.new_ones(group, *w.shape[1:])
    patch_sq = convolve(x_wide.square(), ones, None, strides, padding, dilations, group)
    if group > 1:
        patch_sq = patch_sq.repeat_interleave(w.shape[0] // group, 1)

    per_channel = (-1, *[1] * rank)
    w_sq = w.square().flatten(1).sum(1).reshape(per_channel)
    numerator = dot if bias is None else dot + cast(cast(bias, x.dtype), wide).reshape(per_channel)
    return saturate(yat(numerator, dot, patch_sq, w_sq, epsilon, alpha), x.dtype)


def exact_yat_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
    *,
    displacement: float = 0.0,
) -> Tensor:
    """`yat_conv` in float64 with ‖p − w‖² as a sum of squared differences, which does not cancel.

    `displacement`, a multiple of ‖p‖² + ‖w‖², is added to ‖p − w‖² as rounding would.
    """
    patches, out_size = _patches(x.double(), weight.shape[2:], strides, pads, dilations, group)
    filters = weight.double().reshape(group, len(weight) // group, -1)  # [g, O/g, C/g·K]
    dot = patches @ filters.mT  # [g, B·S', O/g]
    distance = torch.cdist(patches, filters, compute_mode="donot_use_mm_for_euclid_dist").square()
    if displacement:
        patch_sq = patches.square().sum(-1, keepdim=True)
        norms = patch_sq + filters.square().sum(-1).unsqueeze(1)
        distance = (distance + displacement * norms).clamp_min(0)
    numerator = (
        dot if bias is None else dot + bias.double().expand(len(weight)).reshape(group, 1, -1)
    )
    y: Tensor = alpha * numerator.square() / (distance + epsilon)
    y = y.reshape(group, x.shape[0], math.prod(out_size), filters.shape[1]).permute(1, 0, 3, 2)
    return y.reshape(x.shape[0], weight.shape[0], *out_size)


def _patches(
    x: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
) -> tuple[Tensor, list[int]]:
    """Return patches as [group, B·S', C/group·K], and S'. Negative pads crop."""
    # A crop may be larger than the image, but not than the image with its zeros.
    x = F.pad(x, [max(p, 0) for p in torch_padding(pads)])
    x = F.pad(x, [min(p, 0) for p in torch_padding(pads)])
    x = x.reshape(x.shape[0], group, x.shape[1] // group, *x.shape[2:])  # [B, g, C/g, *S]
    for axis, (k, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True)):
        x = x.unfold(3 + axis, (k - 1) * dilation + 1, stride)[..., ::dilation]
    rank = len(kernel)
    out_size = list(x.shape[3 : 3 + rank])
    spatial, taps = range(3, 3 + rank), range(3 + rank, 3 + 2 * rank)
    x = x.permute(1, 0, *spatial, 2, *taps)
    return x.flatten(2 + rank).flatten(1, 1 + rank), out_size


def torch_padding(pads: Sequence[int]) -> list[int]:
    """Convert ONNX pads (begins, then ends) to those of `F.pad` (pairs, last axis first)."""
    rank = len(pads) // 2
    return [p for axis in reversed(range(rank)) for p in (pads[axis], pads[rank + axis])]


def output_size(
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> list[int]:
    """Return the spatial output size of a convolution; sequences have one entry per axis."""
    rank = len(kernel)
    return [
        (size[i] + pads[i] + pads[rank + i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        for i in range(rank)
    ]


_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def in_layout_of(x: Tensor, y: Tensor) -> Tensor:
    """Return `y` in channels-last format if `x` has it, as every implementation of the op must."""
    layout = _CHANNELS_LAST.get(x.ndim, torch.contiguous_format)
    if x.is_contiguous() or not x.is_contiguous(memory_format=layout):
        layout = torch.contiguous_format
    return y.contiguous(memory_format=layout)


@torch.library.custom_op("nmn::yat_conv", mutates_args=())
def _yat_conv_op(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
) -> Tensor:
    y = yat_conv(x, weight, bias, epsilon, alpha, strides, pads, dilations, group)
    return in_layout_of(x, y)


@_yat_conv_op.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
) -> Tensor:
    del bias, epsilon, alpha
    # The op cannot have a dynamic channel axis. Without this check, tracing would accept one.
    if x.shape[1] != weight.shape[1] * group:
        raise ValueError(f"x has {x.shape[1]} channels, and weight {weight.shape[1] * group}")
    size = output_size(x.shape[2:], weight.shape[2:], strides, pads, dilations)
    return in_layout_of(x, x.new_empty(x.shape[0], weight.shape[0], *size))


register_autograd(_yat_conv_op, yat_conv)

SPEC = OpSpec(
    name="YatConv",
    summary="y = alpha (<p, w> + b)^2 / (max(|p|^2 + |w|^2 - 2 <p, w>, 0) + epsilon), p a patch",
    inputs={"X": "[B, C, *S]", "W": "[O, C/group, *K]", "B": "[O]"},
    attributes={
        "epsilon": 1e-5,
        "alpha": 1.0,
        "kernel_shape": None,
        "strides": None,
        "pads": None,
        "dilations": None,
        "group": 1,
    },
    attribute_types={
        "epsilon": float,
        "alpha": float,
        "kernel_shape": tuple,
        "strides": tuple,
        "pads": tuple,
        "dilations": tuple,
        "group": int,
    },
    torch_op=torch.ops.nmn.yat_conv.default,
    exact=exact_yat_conv,
)
