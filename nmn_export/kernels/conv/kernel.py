"""YatConv's kernel: an implicit matrix product of patches and filters, over one to three axes.

Arguments: see the table in `nmn_export.kernels`. Depths, heights and widths come in triples, and
tile-shaped ones have one entry per patch: [BLOCK_SIZE_M].
"""

import triton
import triton.language as tl

from nmn_export.kernels.conv.patches import dot_and_norm
from nmn_export.kernels.load_store import store_tile


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

    weight_width_stride = tl.cdiv(in_feat_dim, BLOCK_SIZE_K) * BLOCK_SIZE_K
    weight_height_stride = kernel_width * weight_width_stride
    dot, norm = dot_and_norm(
        input_pointer, norm_pointer, weight_pointer,
        batch, depth_start, height_start, width_start, group, column_start,
        in_feat_dim, out_feat_dim, depth_dim, height_dim, width_dim,
        kernel_depth, kernel_height, kernel_width,
        depth_dilation, height_dilation, width_dilation,
        kernel_height * weight_height_stride, weight_height_stride, weight_width_stride,
        input_pixel_stride, norm_pixel_stride, weight_plane_stride, weight_out_feat_stride,
        PLANES, PRECISION, HAS_DEPTH, EVEN, BLOCK_SIZE_M, BLOCK_SIZE_N, BLOCK_SIZE_K,
    )  # fmt: skip
    output_pointers = output_pointer + batch * output_batch_stride + out_pixel * output_pixel_stride
    first_column = group * out_feat_dim
    store_tile(
        dot, norm, column_term_pointer, None, bias_pointer, output_pointers, patches < patch_dim,
        first_column + column_start, first_column + out_feat_dim, output_feat_stride,
        norm_scale, floor, HAS_BIAS, False, NEGATIVE,
    )  # fmt: skip
