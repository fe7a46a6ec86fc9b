"""YatConvTranspose's kernel: a convolution of stride 1 for every phase of the output.

A phase is a set of output pixels that are a stride apart along every axis. Output pixel o receives
tap k from image pixel (o + pad − k · dilation) / stride, if that is a whole number. All pixels of a
phase therefore receive the same taps. No zeros are inserted, and every output is written once.

Arguments: see the table in `nmn_export.kernels`.
"""

import triton
import triton.language as tl

from nmn_export.kernels.conv.patches import dot_and_norm, inside_image
from nmn_export.kernels.load_store import store_tile


@triton.jit
def phase_of_axis(phase, stride, pad, kernel, dilation, tap_stride):
    """Return where a phase starts along one axis, and which taps it has.

    `phase` is a number below `stride`. Phase p < `tap_stride` has the taps p, p + `tap_stride` and
    so on, up to the end of the filter. The other phases have none: no tap ever reaches them.

    Returns the first output pixel of the phase, the image pixel from which that receives the first
    tap, the first tap, and the number of taps.
    """
    tap = phase % tap_stride
    # The output pixel that receives the first tap from image pixel 0, if no pads were removed. The
    # phases without taps are those of the pixels beside it.
    reached = tap * dilation + phase // tap_stride
    out_start = (reached + stride - pad % stride) % stride
    start = (out_start + pad - reached) // stride
    taps = tl.where(phase < tap_stride, tl.cdiv(kernel - tap, tap_stride), 0)
    return out_start, start, tap, taps


@triton.jit
def yat_conv_transpose_forward_kernel(
    input_pointer, norm_pointer, weight_pointer, column_term_pointer, bias_pointer, output_pointer,
    patch_dim, in_feat_dim, out_feat_dim,
    depth_dim, height_dim, width_dim,
    out_depth_dim, out_height_dim, out_width_dim,
    kernel_depth, kernel_height, kernel_width,
    depth_stride, height_stride, width_stride,
    depth_pad, height_pad, width_pad,
    depth_dilation, height_dilation, width_dilation,
    depth_tap_stride, height_tap_stride, width_tap_stride,
    input_pixel_stride, norm_pixel_stride, weight_plane_stride, weight_out_feat_stride,
    output_batch_stride, output_feat_stride, output_pixel_stride,
    norm_scale, floor,
    HAS_BIAS: tl.constexpr, NEGATIVE: tl.constexpr, PLANES: tl.constexpr, PRECISION: tl.constexpr,
    HAS_DEPTH: tl.constexpr, EVEN: tl.constexpr,
    BLOCK_SIZE_M: tl.constexpr, BLOCK_SIZE_N: tl.constexpr, BLOCK_SIZE_K: tl.constexpr,
):  # fmt: skip
    """Compute YatConvTranspose. A program computes one tile of one phase and one group.

    Shapes are those of `yat_conv_forward_kernel`. `patch_dim` is the number of patches of the
    largest phase. Each phase has as many, and those outside of the output are not stored.
    """
    group = tl.program_id(1)
    column_blocks = tl.cdiv(out_feat_dim, BLOCK_SIZE_N)
    column_start = tl.program_id(0) % column_blocks * BLOCK_SIZE_N
    # Programs that run at the same time are phases of the same image pixels.
    block = tl.program_id(0) // column_blocks
    phases = depth_stride * height_stride * width_stride
    patches = block // phases * BLOCK_SIZE_M + tl.arange(0, BLOCK_SIZE_M)
    phase = block % phases
    depth_phase = 0
    if HAS_DEPTH:
        depth_phase = phase // (height_stride * width_stride)
    out_depth, depth_start, depth_tap, depth_taps = phase_of_axis(
        depth_phase, depth_stride, depth_pad, kernel_depth, depth_dilation, depth_tap_stride
    )
    out_height, height_start, height_tap, height_taps = phase_of_axis(
        phase // width_stride % height_stride, height_stride, height_pad, kernel_height,
        height_dilation, height_tap_stride,
    )  # fmt: skip
    out_width, width_start, width_tap, width_taps = phase_of_axis(
        phase % width_stride, width_stride, width_pad, kernel_width,
        width_dilation, width_tap_stride,
    )  # fmt: skip

    patch = tl.minimum(patches, patch_dim - 1)
    rows, columns = tl.cdiv(out_height_dim, height_stride), tl.cdiv(out_width_dim, width_stride)
    pixels = tl.cdiv(out_depth_dim, depth_stride) * rows * columns
    batch, pixel = patch // pixels, patch % pixels
    depth, height, width = pixel // (rows * columns), pixel // columns % rows, pixel % columns

    tap_feats = tl.cdiv(in_feat_dim, BLOCK_SIZE_K) * BLOCK_SIZE_K
    first_tap = (depth_tap * kernel_height + height_tap) * kernel_width + width_tap
    dot, norm = dot_and_norm(
        input_pointer, norm_pointer, weight_pointer + first_tap * tap_feats,
        batch, depth_start + depth, height_start + height, width_start + width,
        group, column_start, in_feat_dim, out_feat_dim, depth_dim, height_dim, width_dim,
        depth_taps, height_taps, width_taps,
        -depth_dilation * depth_tap_stride // depth_stride,
        -height_dilation * height_tap_stride // height_stride,
        -width_dilation * width_tap_stride // width_stride,
        depth_tap_stride * kernel_height * kernel_width * tap_feats,
        height_tap_stride * kernel_width * tap_feats, width_tap_stride * tap_feats,
        input_pixel_stride, norm_pixel_stride, weight_plane_stride, weight_out_feat_stride,
        PLANES, PRECISION, HAS_DEPTH, EVEN, BLOCK_SIZE_M, BLOCK_SIZE_N, BLOCK_SIZE_K,
    )  # fmt: skip

    out_depth += depth * depth_stride
    out_height += height * height_stride
    out_width += width * width_stride
    row_mask = (patches < patch_dim) & inside_image(
        out_depth, out_height, out_width, out_depth_dim, out_height_dim, out_width_dim, HAS_DEPTH
    )
    out_pixel = (out_depth * out_height_dim + out_height) * out_width_dim + out_width
    output_pointers = output_pointer + batch * output_batch_stride + out_pixel * output_pixel_stride
    first_column = group * out_feat_dim
    store_tile(
        dot, norm, column_term_pointer, None, bias_pointer, output_pointers, row_mask,
        first_column + column_start, first_column + out_feat_dim, output_feat_stride,
        norm_scale, floor, HAS_BIAS, False, NEGATIVE,
    )  # fmt: skip
