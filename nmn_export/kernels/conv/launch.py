"""YatConv from PyTorch: input checks, channels-last conversion, choice of tile, launch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.kernels.conv.channels_last import pack_pixels
from nmn_export.kernels.conv.kernel import yat_conv_forward_kernel
from nmn_export.kernels.conv.weights import ConvWeights, cached_conv
from nmn_export.kernels.device import Device, device_of
from nmn_export.kernels.row_norms import row_norms
from nmn_export.kernels.tile_size import Tile, large_tile, make_tile
from nmn_export.kernels.weights import ALIGNMENT
from nmn_export.ops.conv import output_size

FEW_FILTERS = 64
"""Filters per group up to which narrow tiles are used."""

_LARGEST_OFFSET = 2**31 - 1
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Geometry:
    """Positions of patches, in pixels. Each field has an entry for depth, height and width.

    Attributes:
        strides: From one patch to the next.
        pads: Zeros before the first pixel.
        pads_after: Zeros after the last pixel.
        dilations: From one tap to the next.
    """

    strides: tuple[int, ...]
    pads: tuple[int, ...]
    pads_after: tuple[int, ...]
    dilations: tuple[int, ...]

    @classmethod
    def of(
        cls, rank: int, strides: Sequence[int], pads: Sequence[int], dilations: Sequence[int]
    ) -> "Geometry":
        """Return the geometry for the ONNX attributes of `rank` spatial axes.

        Raises:
            NmnExportError: The attributes do not fit `rank`, or are out of range.
        """
        if not (len(strides) == len(dilations) == rank and len(pads) == 2 * rank):
            raise NmnExportError(
                f"YatConv over {rank} axes takes {rank} strides and dilations and {2 * rank} pads",
                got=f"{tuple(strides)}, {tuple(dilations)} and {tuple(pads)}",
                fix="Pass one per axis; for pads, all begins and then all ends.",
            )
        if min(*strides, *dilations) < 1 or min(pads) < 0:
            raise NmnExportError(
                "YatConv takes strides and dilations of at least 1 and pads of at least 0",
                got=f"{tuple(strides)}, {tuple(dilations)} and {tuple(pads)}",
                fix="Crop the input instead of using negative pads.",
            )
        ones, zeros = (1,) * (3 - rank), (0,) * (3 - rank)
        return cls(
            strides=(*ones, *strides),
            pads=(*zeros, *pads[:rank]),
            pads_after=(*zeros, *pads[rank:]),
            dilations=(*ones, *dilations),
        )


def plan_conv(
    patch_dim: int, weights: ConvWeights, channels_last: bool, itemsize: int, device: Device
) -> Tile:
    """Choose the tile for `patch_dim` patches."""
    out_feat_dim = weights.prepared.planes.shape[1] // weights.group
    precision, k = weights.prepared.precision, weights.block_k
    narrow = out_feat_dim <= FEW_FILTERS or out_feat_dim % ALIGNMENT != 0 or not channels_last
    tile = large_tile(precision, itemsize, device.capability, narrow)
    tiles = triton.cdiv(patch_dim, tile.m) * triton.cdiv(out_feat_dim, tile.n) * weights.group
    if tiles >= device.processors:
        return make_tile(tile.m, tile.n, k, tile.warps, precision, itemsize, device.capability)
    return make_tile(64, 64, k, 4, precision, itemsize, device.capability)


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
    _check_input(x, weights)
    sizes = output_size(
        (*(1,) * (3 - weights.rank), *x.shape[2:]),
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
    channels_last = is_channels_last(x)
    shape = (x.shape[0], weights.prepared.planes.shape[1], *sizes[3 - weights.rank :])
    layout = _FORMATS[x.ndim] if channels_last else torch.contiguous_format
    output = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    if max(x.numel(), output.numel()) > _LARGEST_OFFSET:
        raise NmnExportError(
            "The YatConv kernel supports tensors of fewer than 2^31 elements",
            got=f"{x.numel()} in and {output.numel()} out",
            fix="Split the batch.",
        )
    if output.numel():
        patch_dim = x.shape[0] * math.prod(sizes)
        tile = tile or plan_conv(patch_dim, weights, channels_last, x.element_size(), device_of(x))
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
            _launch(x, weights, geometry, sizes, output, channels_last, tile)
    return output


def is_channels_last(x: Tensor) -> bool:
    """Return whether a 2-D or 3-D image is channels-last and not also contiguous."""
    return (
        x.ndim in _FORMATS
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=_FORMATS[x.ndim])
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
    group: int,
) -> Tensor:
    """Compute `nmn::yat_conv` on a GPU, with the filters prepared now or in an earlier call."""
    weights = cached_conv(weight, bias, epsilon, alpha, group, dtype=x.dtype)
    return yat_conv(x, weights, Geometry.of(weight.ndim - 2, strides, pads, dilations))


def _check_input(x: Tensor, weights: ConvWeights) -> None:
    planes = weights.prepared.planes
    if x.dtype != weights.prepared.dtype or x.device != planes.device:
        raise NmnExportError(
            f"YatConv's filters were prepared for {weights.prepared.dtype} on {planes.device}",
            got=f"{x.dtype} on {x.device}",
            fix="Prepare them for this input, or move the input.",
        )
    channels = weights.feat_dim * weights.group
    if x.ndim != weights.rank + 2 or x.shape[1] != channels:
        raise NmnExportError(
            f"YatConv takes input of {weights.rank + 2} dimensions and {channels} channels",
            got=f"shape {tuple(x.shape)}",
            fix="Pass [B, C, *S]: the channels are dimension 1.",
        )


def _pixels(x: Tensor, weights: ConvWeights) -> tuple[Tensor, Tensor]:
    """Return `x` as contiguous [pixels, groups, features], and their squared norms.

    Features of a single group are padded to a multiple of `ALIGNMENT`.
    """
    group, feat_dim = weights.group, weights.feat_dim
    padding = -feat_dim % ALIGNMENT if group == 1 else 0
    truncate = weights.prepared.precision == "tf32"
    if x.is_contiguous():
        return pack_pixels(x, group, feat_dim + padding, truncate=truncate)
    pixels = x.movedim(1, -1)
    if padding:
        pixels = F.pad(pixels, (0, padding))
    pixels = pixels.reshape(-1, group, feat_dim + padding).contiguous()
    return pixels, row_norms(pixels.flatten(0, 1), truncate=truncate)


def _launch(
    x: Tensor,
    weights: ConvWeights,
    geometry: Geometry,
    sizes: Sequence[int],
    output: Tensor,
    channels_last: bool,
    tile: Tile,
) -> None:
    prepared = weights.prepared
    pixels, norms = _pixels(x, weights)
    out_pixels, columns = math.prod(sizes), output.shape[1]
    out_feat_dim = columns // weights.group
    patch_dim = x.shape[0] * out_pixels
    tiles = triton.cdiv(patch_dim, tile.m) * triton.cdiv(out_feat_dim, tile.n)
    yat_conv_forward_kernel[(tiles, weights.group)](
        input_pointer=pixels,
        norm_pointer=norms,
        weight_pointer=prepared.planes,
        column_term_pointer=prepared.column_term,
        bias_pointer=prepared.bias,
        output_pointer=output,
        patch_dim=patch_dim,
        in_feat_dim=pixels.shape[2],
        out_feat_dim=out_feat_dim,
        **_axes("{}_dim", (*(1,) * (3 - weights.rank), *x.shape[2:])),
        **_axes("out_{}_dim", sizes),
        **_axes("kernel_{}", weights.kernel),
        **_axes("{}_stride", geometry.strides),
        **_axes("{}_pad", geometry.pads),
        **_axes("{}_dilation", geometry.dilations),
        input_pixel_stride=pixels.stride(0),
        norm_pixel_stride=weights.group,
        weight_plane_stride=prepared.planes.stride(0),
        weight_out_feat_stride=prepared.planes.stride(1),
        output_batch_stride=columns * out_pixels,
        output_feat_stride=1 if channels_last else out_pixels,
        output_pixel_stride=columns if channels_last else 1,
        norm_scale=prepared.fold.norm_scale,
        floor=prepared.fold.floor,
        HAS_BIAS=prepared.bias is not None,
        NEGATIVE=prepared.fold.negative,
        PLANES=prepared.planes.shape[0],
        PRECISION="tf32" if prepared.precision == "tf32" else "ieee",
        HAS_DEPTH=weights.rank == 3,
        EVEN=pixels.shape[2] % tile.k == 0,
        BLOCK_SIZE_M=tile.m,
        BLOCK_SIZE_N=tile.n,
        BLOCK_SIZE_K=tile.k,
        **tile.options,
    )


def _axes(name: str, values: Sequence[int]) -> dict[str, Any]:
    """Return `values` of depth, height and width under `name`, in which {} is the axis."""
    return {name.format(a): v for a, v in zip(("depth", "height", "width"), values, strict=True)}
