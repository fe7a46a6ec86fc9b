"""YatConv's kernel: an implicit matrix product of patches and filters, over one to three axes.

Arguments: see the table in `nmn_export.kernels`. Depths, heights and widths come in triples, and
tile-shaped ones have one entry per patch: [BLOCK_SIZE_M].
"""

import triton
import triton.language as tl

from nmn_export.kernels.load_store import store_tile
from nmn_export.kernels.yat import split_product


@triton.jit
def inside_image(depth, height, width, depth_dim, height_dim, width_dim, HAS_DEPTH: tl.constexpr):
    """Return whether pixels (`depth`, `height`, `width`) lie in the image.

    Coordinates are compared as unsigned numbers: negative ones become too large.
    """
    inside = (height.to(tl.uint32) < height_dim) & (width.to(tl.uint32) < width_dim)
    if HAS_DEPTH:
        inside &= depth.to(tl.uint32) < depth_dim
    return inside


@triton.jit
def next_tap(
    depth, height, width, go, depth_dilation, height_dilation, width_dilation,
    height_end, width_end, HAS_DEPTH: tl.constexpr,
):  # fmt: skip
    """Return the offset of the next tap in pixels if `go` is 1, or that of this tap if it is 0.

    `height_end` and `width_end` are the offsets at which an axis ends. Counting avoids divisions,
    which would cost more than the product of a step with 64 filters.
    """
    width += go * width_dilation
    row_over = width == width_end
    width = tl.where(row_over, 0, width)
    height += tl.where(row_over, height_dilation, 0)
    if HAS_DEPTH:
        plane_over = height == height_end
        height = tl.where(plane_over, 0, height)
        depth += tl.where(plane_over, depth_dilation, 0)
    return depth, height, width


@triton.jit
def load_filters(pointers, plane_stride, PLANES: tl.constexpr):
    """Load a tile of every plane of the filters. Planes beyond `PLANES` repeat the first.

    `pointers` point into the first plane and are of shape [BLOCK_SIZE_K, BLOCK_SIZE_N].
    `plane_stride` is the number of elements from one plane to the next.
    """
    high = tl.load(pointers)
    middle = high
    low = high
    if PLANES >= 2:
        middle = tl.load(pointers + plane_stride)
    if PLANES >= 3:
        low = tl.load(pointers + 2 * plane_stride)
    return high, middle, low


@triton.jit
def patch_norm(
    norm_pointers, norm_pixel_stride, taps,
    depth_start, height_start, width_start, depth_dim, height_dim, width_dim,
    depth_dilation, height_dilation, width_dilation, height_end, width_end,
    HAS_DEPTH: tl.constexpr,
):  # fmt: skip
    """Return the squared norms of patches, float32: sums of the norms of their pixels.

    `norm_pointers` point to the norm of the first pixel of each patch, which lies at
    (`depth_start`, `height_start`, `width_start`). `taps` is the number of taps of a filter. The
    other arguments are those of `next_tap` and `inside_image`.
    """
    norm = tl.zeros(height_start.shape, tl.float32)
    depth, height, width = 0, 0, 0
    for _ in tl.range(0, taps, num_stages=1):
        mask = inside_image(
            depth_start + depth, height_start + height, width_start + width,
            depth_dim, height_dim, width_dim, HAS_DEPTH,
        )  # fmt: skip
        offset = ((depth * height_dim + height) * width_dim + width) * norm_pixel_stride
        norm += tl.load(norm_pointers + offset, mask=mask, other=0.0)
        depth, height, width = next_tap(
            depth, height, width, 1, depth_dilation, height_dilation, width_dilation,
            height_end, width_end, HAS_DEPTH,
        )  # fmt: skip
    return norm


@triton.jit
def yat_conv_forward_kernel(
    input_pointer, norm_pointer, weight_pointer, column_term_pointer, bias_pointer, output_pointer,
    patch_dim, in_feat_dim, out_feat_dim,
    depth_dim, height_dim, width_dim,
    out_depth_dim, out_height_dim, out_width_dim,
    kernel_depth, kernel_height, kernel_width,
    depth_stride, height_stride, width_stride,
    depth_pad, height_pad, width_pad,
    depth_dilation, height_dilation, width_dilation,
    input_pixel_stride, norm_pixel_stride, weight_plane_stride, weight_out_feat_stride,
    output_batch_stride, output_feat_stride, output_pixel_stride,
    norm_scale, floor,
    HAS_BIAS: tl.constexpr, NEGATIVE: tl.constexpr, PLANES: tl.constexpr, PRECISION: tl.constexpr,
    HAS_DEPTH: tl.constexpr, EVEN: tl.constexpr,
    BLOCK_SIZE_M: tl.constexpr, BLOCK_SIZE_N: tl.constexpr, BLOCK_SIZE_K: tl.constexpr,
):  # fmt: skip
    """Compute YatConv. A program computes one tile of patches and filters of one group.

    The norm of a patch is the sum of the norms of its pixels, which are computed beforehand.

    The input is [pixels, groups · in_feat_dim], where pixels = batch · depth_dim · height_dim ·
    width_dim. The norms are [pixels, groups]. The last axis of both has stride 1. The weight is
    [PLANES, groups · out_feat_dim, taps, features]; its features are in_feat_dim, padded with
    zeros to a multiple of BLOCK_SIZE_K. The column terms and the bias are
    [groups · out_feat_dim]. The output is [batch, groups · out_feat_dim, output pixels], with
    any strides.
    """
    group = tl.program_id(1)
    column_blocks = tl.cdiv(out_feat_dim, BLOCK_SIZE_N)
    patches = tl.program_id(0) // column_blocks * BLOCK_SIZE_M + tl.arange(0, BLOCK_SIZE_M)
    column_start = tl.program_id(0) % column_blocks * BLOCK_SIZE_N
    patch = tl.minimum(patches, patch_dim - 1)
    out_pixels = out_depth_dim * out_height_dim * out_width_dim
    batch, out_pixel = patch // out_pixels, patch % out_pixels
    depth_start = out_pixel // (out_height_dim * out_width_dim) * depth_stride - depth_pad
    height_start = out_pixel // out_width_dim % out_height_dim * height_stride - height_pad
    width_start = out_pixel % out_width_dim * width_stride - width_pad

    first_pixel = (batch * depth_dim + depth_start) * height_dim + height_start
    first_pixel = first_pixel * width_dim + width_start

    height_end, width_end = kernel_height * height_dilation, kernel_width * width_dilation
    taps = kernel_depth * kernel_height * kernel_width
    feat_blocks = tl.cdiv(in_feat_dim, BLOCK_SIZE_K)
    feat_offset = tl.arange(0, BLOCK_SIZE_K)
    filters = tl.minimum(column_start + tl.arange(0, BLOCK_SIZE_N), out_feat_dim - 1)
    filters += group * out_feat_dim
    weight_pointers = weight_pointer + filters[None, :] * weight_out_feat_stride
    weight_pointers += feat_offset[:, None]
    input_pointers = input_pointer + (first_pixel * input_pixel_stride)[:, None]
    input_pointers += (group * in_feat_dim + feat_offset)[None, :]
    dot = tl.zeros([BLOCK_SIZE_M, BLOCK_SIZE_N], tl.float32)
    depth, height, width, feat = 0, 0, 0, 0
    for step in tl.range(0, taps * feat_blocks):
        mask = inside_image(
            depth_start + depth, height_start + height, width_start + width,
            depth_dim, height_dim, width_dim, HAS_DEPTH,
        )[:, None]  # fmt: skip
        if not EVEN:
            mask &= (feat_offset < in_feat_dim - feat)[None, :]
        offset = ((depth * height_dim + height) * width_dim + width) * input_pixel_stride + feat
        x = tl.load(input_pointers + offset, mask=mask, other=0.0)
        high, middle, low = load_filters(
            weight_pointers + step * BLOCK_SIZE_K, weight_plane_stride, PLANES
        )
        dot = split_product(x, high, middle, low, dot, PLANES, PRECISION)
        feat += BLOCK_SIZE_K
        tap_over = feat >= in_feat_dim
        feat = tl.where(tap_over, 0, feat)
        depth, height, width = next_tap(
            depth, height, width, tap_over.to(tl.int32), depth_dilation, height_dilation,
            width_dilation, height_end, width_end, HAS_DEPTH,
        )  # fmt: skip

    norm = patch_norm(
        norm_pointer + first_pixel * norm_pixel_stride + group, norm_pixel_stride, taps,
        depth_start, height_start, width_start, depth_dim, height_dim, width_dim,
        depth_dilation, height_dilation, width_dilation, height_end, width_end, HAS_DEPTH,
    )  # fmt: skip
    output_pointers = output_pointer + batch * output_batch_stride + out_pixel * output_pixel_stride
    first_column = group * out_feat_dim
    store_tile(
        dot, norm, column_term_pointer, None, bias_pointer, output_pointers, patches < patch_dim,
        first_column + column_start, first_column + out_feat_dim, output_feat_stride,
        norm_scale, floor, HAS_BIAS, False, NEGATIVE,
    )  # fmt: skip
