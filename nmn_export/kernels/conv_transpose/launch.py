"""YatConvTranspose from PyTorch: input checks and launch."""

import math
from collections.abc import Sequence

import triton
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.kernels.conv.images import (
    LARGEST_OFFSET,
    Geometry,
    axes,
    check_input,
    compute,
    image_size,
)
from nmn_export.kernels.conv.weights import ConvWeights
from nmn_export.kernels.conv_transpose.kernel import yat_conv_transpose_forward_kernel
from nmn_export.kernels.conv_transpose.weights import cached_conv_transpose
from nmn_export.kernels.tile_size import Tile
from nmn_export.ops.conv_transpose import output_size


def yat_conv_transpose(
    x: Tensor,
    weights: ConvWeights,
    geometry: Geometry,
    output_padding: Sequence[int],
    tile: Tile | None = None,
) -> Tensor:
    """Compute the ⵟ-product of every transposed patch of `x` with every filter, fused.

    Args:
        x: [B, C, *S], of the dtype and on the device of `weights`. If it is not channels-last, it
            is converted.
        weights: Result of `prepare_conv_transpose`.
        geometry: Strides, pads and dilations.
        output_padding: Pixels added after each spatial axis of the output.
        tile: Tile size; `None` chooses it.

    Returns:
        [B, O, *S'], channels-last if `x` is, else contiguous.

    Raises:
        NmnExportError: `x` does not match `weights`, or is too small or too large.
    """
    check_input("YatConvTranspose", x, weights)
    if len(output_padding) != weights.rank or min(output_padding) < 0:
        raise NmnExportError(
            f"YatConvTranspose over {weights.rank} axes takes {weights.rank} output paddings of at "
            "least 0",
            got=tuple(output_padding),
            fix="Pass one per axis.",
        )
    sizes = output_size(
        image_size(x),
        weights.kernel,
        geometry.strides,
        (*geometry.pads, *geometry.pads_after),
        geometry.dilations,
        (*(0,) * (3 - weights.rank), *output_padding),
    )
    if min(sizes) < 1:
        raise NmnExportError(
            "YatConvTranspose takes pads that leave at least one pixel of the output",
            got=f"output size {tuple(sizes[3 - weights.rank :])}",
            fix="Use smaller pads or a larger input.",
        )
    steps = list(zip(geometry.strides, geometry.dilations, strict=True))
    if max(stride * dilation for stride, dilation in steps) > LARGEST_OFFSET:
        raise NmnExportError(
            "The YatConvTranspose kernel takes strides · dilations of less than 2^31",
            got=f"{geometry.strides} and {geometry.dilations}",
            fix="Use smaller ones.",
        )
    largest_phase = map(triton.cdiv, sizes, geometry.strides)
    return compute(
        "YatConvTranspose",
        yat_conv_transpose_forward_kernel,
        x,
        weights,
        geometry,
        sizes,
        tile,
        patch_dim=x.shape[0] * math.prod(largest_phase),
        phases=math.prod(geometry.strides),
        **axes("{}_tap_stride", [stride // math.gcd(stride, d) for stride, d in steps]),
    )


def forward(
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
    """Compute `nmn::yat_conv_transpose` on a GPU, with filters prepared now or in a call before."""
    weights = cached_conv_transpose(weight, bias, epsilon, alpha, group, dtype=x.dtype)
    geometry = Geometry.of("YatConvTranspose", weights.rank, strides, pads, dilations)
    return yat_conv_transpose(x, weights, geometry, output_padding)
