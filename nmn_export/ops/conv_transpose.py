"""YatConvTranspose: the ⵟ-product of transposed patches, in one to three dimensions.

The op is a ⵟ-convolution with stride 1. Its input is the image with `stride − 1` zeros between
pixels, and its filters are flipped along the spatial axes. A patch therefore contains the zeros.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nmn_export.ops.autograd import register_autograd
from nmn_export.ops.conv import exact_yat_conv, in_layout_of, torch_padding
from nmn_export.ops.spec import OpSpec
from nmn_export.ops.yat import Scalar, cast, compute_dtype, saturate, yat

_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def yat_conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    epsilon: Scalar = 1e-5,
    alpha: Scalar = 1.0,
    strides: Sequence[int] = (1,),
    pads: Sequence[int] = (0, 0),
    dilations: Sequence[int] = (1,),
    output_padding: Sequence[int] = (0,),
    group: int = 1,
) -> Tensor:
    """Return α (⟨p, w⟩ + b)² / (‖p − w‖² + ε) over transposed patches p, differentiable.

    Args:
        x: Input, [B, C, *S] with one to three spatial axes, of any floating dtype. float16 and
            bfloat16 are computed in float32, and the result saturates.
        weight: [C, O / group, *K], cast to the dtype of `x`.
        bias: [O] or [1].
        epsilon: ε > 0.
        alpha: α.
        strides: One per spatial axis.
        pads: Pixels removed before each spatial axis of the output, then pixels removed after each,
            as in ONNX.
        dilations: One per spatial axis.
        output_padding: Pixels added after each spatial axis of the output.
        group: Groups of channels.

    Returns:
        [B, O, *S'] in the dtype of `x`. ‖w‖² is always that of the whole filter, and ‖p‖² is that
        of the pixels which reach the output.
    """
    wide = compute_dtype(x.dtype)
    w = cast(cast(weight, x.dtype), wide)
    x_wide = cast(x, wide)
    geometry = (strides, pads, dilations, output_padding, group)
    dot = _transposed(x_wide, w, *geometry)
    patch_sq = _transposed(x_wide.square(), torch.ones_like(w[:, :1]), *geometry)
    if group > 1:
        patch_sq = patch_sq.repeat_interleave(w.shape[1], 1)

    per_channel = (-1, *[1] * (w.ndim - 2))
    by_group = w.square().reshape(group, w.shape[0] // group, w.shape[1], -1)
    w_sq = by_group.sum((1, 3)).reshape(per_channel)
    numerator = dot if bias is None else dot + cast(cast(bias, x.dtype), wide).reshape(per_channel)
    return saturate(yat(numerator, dot, patch_sq, w_sq, epsilon, alpha), x.dtype)


def _transposed(
    x: Tensor,
    weight: Tensor,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    output_padding: Sequence[int],
    group: int,
) -> Tensor:
    """Return the transposed convolution, with pads as in ONNX."""
    rank = weight.ndim - 2
    convolve = _TRANSPOSED[rank]
    begins, ends = tuple(pads[:rank]), tuple(pads[rank:])
    if begins == ends:
        return convolve(x, weight, None, strides, begins, output_padding, group, dilations)
    # PyTorch removes the same number of pixels from both ends.
    y = convolve(x, weight, None, strides, (0,) * rank, output_padding, group, dilations)
    return F.pad(y, [-p for p in torch_padding(pads)])


def exact_yat_conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    output_padding: Sequence[int],
    group: int,
    *,
    displacement: float = 0.0,
) -> Tensor:
    """`yat_conv_transpose` in float64, as the convolution that the module's docstring describes.

    `displacement`, a multiple of ‖p‖² + ‖w‖², is added to ‖p − w‖² as rounding would.
    """
    rank = weight.ndim - 2
    reach = [d * (k - 1) for k, d in zip(weight.shape[2:], dilations, strict=True)]
    before = [r - p for r, p in zip(reach, pads[:rank], strict=True)]
    after = [r - p + extra for r, p, extra in zip(reach, pads[rank:], output_padding, strict=True)]
    return exact_yat_conv(
        _with_zeros_between(x, strides),
        flipped_filters(weight, group),
        bias,
        epsilon,
        alpha,
        (1,) * rank,
        (*before, *after),
        dilations,
        group,
        displacement=displacement,
    )


def _with_zeros_between(x: Tensor, strides: Sequence[int]) -> Tensor:
    """Return [B, C, *S] with `stride − 1` zeros between pixels."""
    size = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], strides, strict=True)]
    stuffed = x.new_zeros(*x.shape[:2], *size)
    every = tuple(slice(None, None, s) for s in strides)
    stuffed[:, :, *every] = x
    return stuffed


def filters_of(weight: Tensor, group: int) -> Tensor:
    """Return [C, O / group, *K] as one filter for each output, [O, C / group, *K]."""
    channels, per_group, *kernel = weight.shape
    filters = weight.reshape(group, channels // group, per_group, *kernel).transpose(1, 2)
    return filters.reshape(group * per_group, channels // group, *kernel)


def flipped_filters(weight: Tensor, group: int) -> Tensor:
    """Return [C, O / group, *K] as the filters of a convolution, [O, C / group, *K]."""
    return filters_of(weight, group).flip(tuple(range(2, weight.ndim)))


def output_size(
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    output_padding: Sequence[int],
) -> list[int]:
    """Return the spatial output size; sequences have one entry per axis, but `pads` has two."""
    rank = len(kernel)
    return [
        (size[i] - 1) * strides[i]
        + dilations[i] * (kernel[i] - 1)
        + 1
        + output_padding[i]
        - pads[i]
        - pads[rank + i]
        for i in range(rank)
    ]


@torch.library.custom_op("nmn::yat_conv_transpose", mutates_args=())
def _yat_conv_transpose_op(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    output_padding: Sequence[int],
    group: int,
) -> Tensor:
    y = yat_conv_transpose(
        x, weight, bias, epsilon, alpha, strides, pads, dilations, output_padding, group
    )
    return in_layout_of(x, y)


@_yat_conv_transpose_op.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    output_padding: Sequence[int],
    group: int,
) -> Tensor:
    del bias, epsilon, alpha
    # The op cannot have a dynamic channel axis. Without this check, tracing would accept one.
    if x.shape[1] != weight.shape[0]:
        raise ValueError(f"x has {x.shape[1]} channels, and weight {weight.shape[0]}")
    size = output_size(x.shape[2:], weight.shape[2:], strides, pads, dilations, output_padding)
    return in_layout_of(x, x.new_empty(x.shape[0], weight.shape[1] * group, *size))


register_autograd(_yat_conv_transpose_op, yat_conv_transpose)

SPEC = OpSpec(
    name="YatConvTranspose",
    summary="y = alpha (<p, w> + b)^2 / (max(|p|^2 + |w|^2 - 2 <p, w>, 0) + epsilon), "
    "p a transposed patch",
    inputs={"X": "[B, C, *S]", "W": "[C, O/group, *K]", "B": "[O]"},
    attributes={
        "epsilon": 1e-5,
        "alpha": 1.0,
        "kernel_shape": None,
        "strides": None,
        "pads": None,
        "dilations": None,
        "output_padding": None,
        "group": 1,
    },
    attribute_types={
        "epsilon": float,
        "alpha": float,
        "kernel_shape": tuple,
        "strides": tuple,
        "pads": tuple,
        "dilations": tuple,
        "output_padding": tuple,
        "group": int,
    },
    torch_op=torch.ops.nmn.yat_conv_transpose.default,
    exact=exact_yat_conv_transpose,
)
