"""YatConv from PyTorch: input checks and launch."""

import math
from collections.abc import Sequence

from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.kernels.conv.images import Geometry, check_input, compute, image_size
from nmn_export.kernels.conv.kernel import yat_conv_forward_kernel
from nmn_export.kernels.conv.weights import ConvWeights, cached_conv
from nmn_export.kernels.tile_size import Tile
from nmn_export.ops.conv import output_size


def yat_conv(
    x: Tensor, weights: ConvWeights, geometry: Geometry, tile: Tile | None = None
) -> Tensor:
    """Compute the ⵟ-product of every patch of `x` with every filter, fused.

    Args:
        x: [B, C, *S], of the dtype and on the device of `weights`. If it is not channels-last, it
            is converted.
        weights: Result of `prepare_conv`.
        geometry: Strides, pads and dilations.
        tile: Tile size; `None` chooses it.

    Returns:
        [B, O, *S'], channels-last if `x` is, else contiguous.

    Raises:
        NmnExportError: `x` does not match `weights`, or is too small or too large.
    """
    check_input("YatConv", x, weights)
    sizes = output_size(
        image_size(x),
        weights.kernel,
        geometry.strides,
        (*geometry.pads, *geometry.pads_after),
        geometry.dilations,
    )
    if min(sizes) < 1:
        raise NmnExportError(
            "YatConv takes an input at least as large as a dilated filter",
            got=f"input {tuple(x.shape)} and filters of {weights.kernel[3 - weights.rank :]}",
            fix="Pad the input.",
        )
    patch_dim = x.shape[0] * math.prod(sizes)
    return compute("YatConv", yat_conv_forward_kernel, x, weights, geometry, sizes, tile, patch_dim)


def forward(
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
    """Compute `nmn::yat_conv` on a GPU, with the filters prepared now or in an earlier call."""
    weights = cached_conv(weight, bias, epsilon, alpha, group, dtype=x.dtype)
    geometry = Geometry.of("YatConv", weights.rank, strides, pads, dilations)
    return yat_conv(x, weights, geometry)
