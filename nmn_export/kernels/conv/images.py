"""What the launches of YatConv and YatConvTranspose share: everything but the output size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.kernels.conv.channels_last import pack_pixels
from nmn_export.kernels.conv.weights import ConvWeights
from nmn_export.kernels.device import Device, device_of
from nmn_export.kernels.row_norms import row_norms
from nmn_export.kernels.tile_size import Tile, large_tile, make_tile
from nmn_export.kernels.weights import ALIGNMENT

FEW_FILTERS = 64
"""Filters per group up to which narrow tiles are used."""

LARGEST_OFFSET = 2**31 - 1
"""Largest 32-bit offset of an element."""

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Geometry:
    """Positions of patches, in pixels. Each field has an entry for depth, height and width.

    Attributes:
        strides: From one patch to the next.
        pads: Zeros before the first pixel; for YatConvTranspose, pixels removed there.
        pads_after: The same after the last pixel.
        dilations: From one tap to the next.
    """

    strides: tuple[int, ...]
    pads: tuple[int, ...]
    pads_after: tuple[int, ...]
    dilations: tuple[int, ...]

    @classmethod
    def of(
        cls,
        op: str,
        rank: int,
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
    ) -> Self:
        """Return the geometry for the ONNX attributes of an op over `rank` spatial axes.

        Raises:
            NmnExportError: The attributes do not fit `rank`, or are out of range.
        """
        got = f"{tuple(strides)}, {tuple(dilations)} and {tuple(pads)}"
        if not (len(strides) == len(dilations) == rank and len(pads) == 2 * rank):
            raise NmnExportError(
                f"{op} over {rank} axes takes {rank} strides and dilations and {2 * rank} pads",
                got=got,
                fix="Pass one per axis; for pads, all begins and then all ends.",
            )
        if min(*strides, *dilations) < 1 or min(pads) < 0:
            raise NmnExportError(
                f"{op} takes strides and dilations of at least 1 and pads of at least 0",
                got=got,
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
    """Choose the tile for `patch_dim` patches, those of all phases."""
    out_feat_dim = weights.prepared.planes.shape[1] // weights.group
    precision, k = weights.prepared.precision, weights.block_k
    narrow = out_feat_dim <= FEW_FILTERS or out_feat_dim % ALIGNMENT != 0 or not channels_last
    tile = large_tile(precision, itemsize, device.capability, narrow)
    tiles = triton.cdiv(patch_dim, tile.m) * triton.cdiv(out_feat_dim, tile.n) * weights.group
    if tiles >= device.processors:
        return make_tile(tile.m, tile.n, k, tile.warps, precision, itemsize, device.capability)
    return make_tile(64, 64, k, 4, precision, itemsize, device.capability)


def is_channels_last(x: Tensor) -> bool:
    """Return whether a 2-D or 3-D image is channels-last and not also contiguous."""
    return (
        x.ndim in _FORMATS
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=_FORMATS[x.ndim])
    )


def image_size(x: Tensor) -> tuple[int, ...]:
    """Return depth, height and width of `x` [B, C, *S]; 1 for axes that it does not have."""
    return (*(1,) * (5 - x.ndim), *x.shape[2:])


def check_input(op: str, x: Tensor, weights: ConvWeights) -> None:
    """Check that `x` matches the prepared filters.

    Raises:
        NmnExportError: Its dtype, device, channels or number of axes differs.
    """
    planes = weights.prepared.planes
    if x.dtype != weights.prepared.dtype or x.device != planes.device:
        raise NmnExportError(
            f"{op}'s filters were prepared for {weights.prepared.dtype} on {planes.device}",
            got=f"{x.dtype} on {x.device}",
            fix="Prepare them for this input, or move the input.",
        )
    channels = weights.feat_dim * weights.group
    if x.ndim != weights.rank + 2 or x.shape[1] != channels:
        raise NmnExportError(
            f"{op} takes input of {weights.rank + 2} dimensions and {channels} channels",
            got=f"shape {tuple(x.shape)}",
            fix="Pass [B, C, *S]: the channels are dimension 1.",
        )


def compute(
    op: str,
    kernel: Any,
    x: Tensor,
    weights: ConvWeights,
    geometry: Geometry,
    sizes: Sequence[int],
    tile: Tile | None,
    patch_dim: int,
    phases: int = 1,
    **arguments: int,
) -> Tensor:
    """Launch the kernel of an op on `x` [B, C, *S], and return its output.

    Args:
        op: Name of the op.
        kernel: Its kernel.
        x: Input; converted to channels-last if it is not.
        weights: Prepared filters, which `check_input` accepts.
        geometry: Strides, pads and dilations.
        sizes: Depth, height and width of the output.
        tile: Tile size; `None` chooses it.
        patch_dim: Patches of a phase.
        phases: Number of phases, each of which has its own programs.
        arguments: Arguments that only this kernel has.

    Returns:
        [B, O, *S'], channels-last if `x` is, else contiguous.

    Raises:
        NmnExportError: A tensor is too large.
    """
    channels_last = is_channels_last(x)
    columns = weights.prepared.planes.shape[1]
    shape = (x.shape[0], columns, *sizes[3 - weights.rank :])
    layout = _FORMATS[x.ndim] if channels_last else torch.contiguous_format
    patches = patch_dim * phases
    if max(x.numel(), patches * columns) > LARGEST_OFFSET:
        raise NmnExportError(
            f"The {op} kernel supports tensors of fewer than 2^31 elements",
            got=f"{x.numel()} in and {patches * columns} out",
            fix="Split the batch.",
        )
    output = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    if not output.numel():
        return output
    tile = tile or plan_conv(patches, weights, channels_last, x.element_size(), device_of(x))
    prepared = weights.prepared
    out_pixels, out_feat_dim = math.prod(sizes), columns // weights.group
    tiles = triton.cdiv(patch_dim, tile.m) * triton.cdiv(out_feat_dim, tile.n) * phases
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        pixels, norms = _pixels(x, weights)
        kernel[(tiles, weights.group)](
            input_pointer=pixels,
            norm_pointer=norms,
            weight_pointer=prepared.planes,
            column_term_pointer=prepared.column_term,
            bias_pointer=prepared.bias,
            output_pointer=output,
            patch_dim=patch_dim,
            in_feat_dim=pixels.shape[2],
            out_feat_dim=out_feat_dim,
            **axes("{}_dim", image_size(x)),
            **axes("out_{}_dim", sizes),
            **axes("kernel_{}", weights.kernel),
            **axes("{}_stride", geometry.strides),
            **axes("{}_pad", geometry.pads),
            **axes("{}_dilation", geometry.dilations),
            **arguments,
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
    return output


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


def axes(name: str, values: Sequence[int]) -> dict[str, Any]:
    """Return `values` of depth, height and width under `name`, in which {} is the axis."""
    return {name.format(a): v for a, v in zip(("depth", "height", "width"), values, strict=True)}
