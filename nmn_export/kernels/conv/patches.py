"""Products of patches and filters, and norms of patches, for YatConv and YatConvTranspose.

Arguments: see the table in `nmn_export.kernels`. Depths, heights and widths come in triples, and
tile-shaped ones have one entry per patch: [BLOCK_SIZE_M].
"""

import triton
import triton.language as tl

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
def next_tap(depth, height, width, go, height_taps, width_taps, HAS_DEPTH: tl.constexpr):
    """Return the tap after (`depth`, `height`, `width`) if `go` is 1, or the same if it is 0.

    Counting avoids divisions, which would cost more than the product of a step with 64 filters.
    """
    width += go
    row_over = width == width_taps
    width = tl.where(row_over, 0, width)
    height += row_over.to(tl.int32)
    if HAS_DEPTH:
        plane_over = height == height_taps
        height = tl.where(plane_over, 0, height)
        depth += plane_over.to(tl.int32)
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
    norm_pointers, norm_pixel_stride,
    depth_start, height_start, width_start, depth_dim, height_dim, width_dim,
    depth_taps, height_taps, width_taps, depth_dilation, height_dilation, width_dilation,
    HAS_DEPTH: tl.constexpr,
):  # fmt: skip
    """Return the squared norms of patches, float32: sums of the norms of their pixels.

    `norm_pointers` point to the norm of the first pixel of each patch. The other arguments are
    those of `dot_and_norm`.
    """
    norm = tl.zeros(height_start.shape, tl.float32)
    depth, height, width = 0, 0, 0
    for _ in tl.range(0, depth_taps * height_taps * width_taps, num_stages=1):
        depth_offset, height_offset = depth * depth_dilation, height * height_dilation
        width_offset = width * width_dilation
        mask = inside_image(
            depth_start + depth_offset, height_start + height_offset, width_start + width_offset,
            depth_dim, height_dim, width_dim, HAS_DEPTH,
        )  # fmt: skip
        offset = (depth_offset * height_dim + height_offset) * width_dim + width_offset
        norm += tl.load(norm_pointers + offset * norm_pixel_stride, mask=mask, other=0.0)
        depth, height, width = next_tap(depth, height, width, 1, height_taps, width_taps, HAS_DEPTH)
    return norm


@triton.jit
def dot_and_norm(
    input_pointer, norm_pointer, weight_pointer,
    batch, depth_start, height_start, width_start, group, column_start,
    in_feat_dim, out_feat_dim, depth_dim, height_dim, width_dim,
    depth_taps, height_taps, width_taps, depth_dilation, height_dilation, width_dilation,
    weight_depth_stride, weight_height_stride, weight_width_stride,
    input_pixel_stride, norm_pixel_stride, weight_plane_stride, weight_out_feat_stride,
    PLANES: tl.constexpr, PRECISION: tl.constexpr, HAS_DEPTH: tl.constexpr, EVEN: tl.constexpr,
    BLOCK_SIZE_M: tl.constexpr, BLOCK_SIZE_N: tl.constexpr, BLOCK_SIZE_K: tl.constexpr,
):  # fmt: skip
    """Return dot products of patches and filters, and the squared norms of the patches, float32.

    The first pixels of the patches are (`depth_start`, `height_start`, `width_start`) of the images
    `batch`. Pixels outside of an image are zero. `weight_pointer` points to the first tap of filter
    0. There are `<axis>_taps` taps along an axis. From one to the next it is `<axis>_dilation`
    pixels, which may be negative, and `weight_<axis>_stride` elements. The filters are those from
    `column_start` on of `group`.
    """
    first_pixel = (batch * depth_dim + depth_start) * height_dim + height_start
    first_pixel = first_pixel * width_dim + width_start

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
    for _ in tl.range(0, depth_taps * height_taps * width_taps * feat_blocks):
        depth_offset, height_offset = depth * depth_dilation, height * height_dilation
        width_offset = width * width_dilation
        mask = inside_image(
            depth_start + depth_offset, height_start + height_offset, width_start + width_offset,
            depth_dim, height_dim, width_dim, HAS_DEPTH,
        )[:, None]  # fmt: skip
        if not EVEN:
            mask &= (feat_offset < in_feat_dim - feat)[None, :]
        offset = (depth_offset * height_dim + height_offset) * width_dim + width_offset
        x = tl.load(input_pointers + (offset * input_pixel_stride + feat), mask=mask, other=0.0)
        offset = (
            depth * weight_depth_stride
            + height * weight_height_stride
            + width * weight_width_stride
        )
        high, middle, low = load_filters(
            weight_pointers + (offset + feat), weight_plane_stride, PLANES
        )
        dot = split_product(x, high, middle, low, dot, PLANES, PRECISION)
        feat += BLOCK_SIZE_K
        tap_over = feat >= in_feat_dim
        feat = tl.where(tap_over, 0, feat)
        depth, height, width = next_tap(
            depth, height, width, tap_over.to(tl.int32), height_taps, width_taps, HAS_DEPTH
        )

    norm = patch_norm(
        norm_pointer + first_pixel * norm_pixel_stride + group, norm_pixel_stride,
        depth_start, height_start, width_start, depth_dim, height_dim, width_dim,
        depth_taps, height_taps, width_taps, depth_dilation, height_dilation, width_dilation,
        HAS_DEPTH,
    )  # fmt: skip
    return dot, norm
