"""Tiles in Triton: the loads and stores that the dense kernels share."""

import triton
import triton.language as tl

from nmn_export.kernels.yat import truncate_to_tf32, yat


@triton.jit
def load_tile(
    source,
    row_start,
    feat_start,
    row_dim,
    feat_dim,
    row_stride,
    BLOCK_SIZE_ROW: tl.constexpr,
    BLOCK_SIZE_FEAT: tl.constexpr,
    DESCRIPTOR: tl.constexpr,
    EVEN: tl.constexpr,
    CACHE: tl.constexpr,
):
    """Load a tile of a matrix: zeros beyond its features, anything finite beyond its rows.

    Args:
        source: Pointer to the matrix or, with `DESCRIPTOR`, its tensor descriptor with blocks of
            this tile's shape. Must be of shape [row_dim, feat_dim], the last axis of stride 1.
        row_start: First row of the tile.
        feat_start: First feature of the tile.
        row_dim: Rows of the matrix.
        feat_dim: Features of the matrix.
        row_stride: Elements from one row to the next.
        BLOCK_SIZE_ROW: Rows of the tile.
        BLOCK_SIZE_FEAT: Features of the tile.
        DESCRIPTOR: Whether `source` is a descriptor.
        EVEN: Whether `feat_dim` is a multiple of `BLOCK_SIZE_FEAT`.
        CACHE: Cache modifier; two loads that differ in it are not made one by the compiler.
    """
    if DESCRIPTOR:
        return source.load([row_start, feat_start])
    else:
        rows = tl.minimum(row_start + tl.arange(0, BLOCK_SIZE_ROW), row_dim - 1)
        feats = tl.arange(0, BLOCK_SIZE_FEAT)
        pointers = source + rows.to(tl.int64)[:, None] * row_stride + feats[None, :] + feat_start
        if EVEN:
            return tl.load(pointers, cache_modifier=CACHE)
        else:
            mask = (feats < feat_dim - feat_start)[None, :]
            return tl.load(pointers, mask=mask, other=0.0, cache_modifier=CACHE)


@triton.jit
def load_weight(
    source,
    row_start,
    feat_start,
    row_dim,
    feat_dim,
    row_stride,
    BLOCK_SIZE_ROW: tl.constexpr,
    BLOCK_SIZE_FEAT: tl.constexpr,
    PLANES: tl.constexpr,
    DESCRIPTOR: tl.constexpr,
    EVEN: tl.constexpr,
):
    """Load a tile of every plane of the weight; those beyond `PLANES` repeat the first.

    Args:
        source: As in `load_tile`. Must be of shape [PLANES · row_dim, feat_dim].
        row_start: As in `load_tile`, and so the other arguments.
        feat_start: First feature of the tile.
        row_dim: Rows of one plane.
        feat_dim: Features of the matrix.
        row_stride: Elements from one row to the next.
        BLOCK_SIZE_ROW: Rows of the tile.
        BLOCK_SIZE_FEAT: Features of the tile.
        PLANES: Planes that add up to the weight.
        DESCRIPTOR: Whether `source` is a descriptor.
        EVEN: Whether `feat_dim` is a multiple of `BLOCK_SIZE_FEAT`.
    """
    all_rows = PLANES * row_dim
    high = load_tile(
        source, row_start, feat_start, all_rows, feat_dim, row_stride,
        BLOCK_SIZE_ROW, BLOCK_SIZE_FEAT, DESCRIPTOR, EVEN, "",
    )  # fmt: skip
    middle = high
    low = high
    if PLANES >= 2:
        middle = load_tile(
            source, row_dim + row_start, feat_start, all_rows, feat_dim, row_stride,
            BLOCK_SIZE_ROW, BLOCK_SIZE_FEAT, DESCRIPTOR, EVEN, "",
        )  # fmt: skip
    if PLANES >= 3:
        low = load_tile(
            source, 2 * row_dim + row_start, feat_start, all_rows, feat_dim, row_stride,
            BLOCK_SIZE_ROW, BLOCK_SIZE_FEAT, DESCRIPTOR, EVEN, "",
        )  # fmt: skip
    return high, middle, low


@triton.jit
def square_sum(x, PRECISION: tl.constexpr):
    """Return the squared norms of a tile's rows in float32, as the product sees them.

    Args:
        x: Must be of shape [BLOCK_SIZE_M, BLOCK_SIZE_K].
        PRECISION: As in `nmn_export.kernels.yat.product`.
    """
    x = x.to(tl.float32)
    if PRECISION == "tf32":
        x = truncate_to_tf32(x)
    return tl.sum(x * x, axis=1)


@triton.jit
def store_half(
    dot,
    norm,
    column_term_pointer,
    column_scale_pointer,
    bias_pointer,
    output_pointers,
    row_mask,
    column_offset,
    out_feat_dim,
    output_column_stride,
    norm_scale,
    floor,
    HAS_BIAS: tl.constexpr,
    SPHERICAL: tl.constexpr,
    NEGATIVE: tl.constexpr,
):
    """Turn dot products into outputs and store them; arguments as in `store_tile`."""
    column_mask = column_offset < out_feat_dim
    column_term = tl.load(column_term_pointer + column_offset, mask=column_mask, other=1.0)
    bias = 0.0
    if HAS_BIAS:
        bias = tl.load(bias_pointer + column_offset, mask=column_mask, other=0.0)[None, :]
    row_term = norm * norm_scale
    if SPHERICAL:
        column_scale = tl.load(column_scale_pointer + column_offset, mask=column_mask, other=0.0)
        dot = dot * (1.0 / (tl.sqrt(norm) + 1e-8))[:, None] * column_scale[None, :]
        row_term = tl.zeros_like(norm) + norm_scale
    dtype: tl.constexpr = output_pointers.dtype.element_ty
    y = yat(
        dot, row_term[:, None], column_term[None, :], bias, -2.0 * norm_scale, floor,
        NEGATIVE, dtype,
    )  # fmt: skip
    pointers = output_pointers[:, None] + column_offset[None, :] * output_column_stride
    tl.store(pointers, y, mask=row_mask[:, None] & column_mask[None, :])


@triton.jit
def store_tile(
    dot,
    norm,
    column_term_pointer,
    column_scale_pointer,
    bias_pointer,
    output_pointers,
    row_mask,
    column_start,
    out_feat_dim,
    output_column_stride,
    norm_scale,
    floor,
    HAS_BIAS: tl.constexpr,
    SPHERICAL: tl.constexpr,
    NEGATIVE: tl.constexpr,
):
    """Turn a tile of dot products and the norms of its rows into outputs and store them.

    In two halves: the terms of 128 columns at once would need more than the 128 registers with
    which two programs of 256 threads fit an SM.

    Args:
        dot: ⟨x, w⟩, float32. Must be of shape [BLOCK_SIZE_M, BLOCK_SIZE_N].
        norm: ‖x‖², float32. Must be of shape [BLOCK_SIZE_M].
        column_term_pointer: (‖w‖² + ε) / |α|, float32. Must be of shape [out_feat_dim].
        column_scale_pointer: 1 / (‖w‖ + 1e-8), float32, used if `SPHERICAL`. Must be of shape
            [out_feat_dim].
        bias_pointer: Bias, float32, used if `HAS_BIAS`. Must be of shape [out_feat_dim].
        output_pointers: Where the rows of the output begin. Must be of shape [BLOCK_SIZE_M].
        row_mask: Which rows to store. Must be of shape [BLOCK_SIZE_M].
        column_start: First column of the tile.
        out_feat_dim: Number of columns of the whole output.
        output_column_stride: Elements from one column of the output to the next.
        norm_scale: 1 / |α|.
        floor: ε / |α|.
        HAS_BIAS: Whether there is a bias.
        SPHERICAL: Whether rows and weights are divided by their norms.
        NEGATIVE: Whether α < 0.
    """
    half: tl.constexpr = dot.shape[1] // 2
    left, right = tl.split(tl.permute(tl.reshape(dot, [dot.shape[0], 2, half]), [0, 2, 1]))
    columns = column_start + tl.arange(0, half)
    store_half(
        left, norm, column_term_pointer, column_scale_pointer, bias_pointer, output_pointers,
        row_mask, columns, out_feat_dim, output_column_stride, norm_scale, floor,
        HAS_BIAS, SPHERICAL, NEGATIVE,
    )  # fmt: skip
    store_half(
        right, norm, column_term_pointer, column_scale_pointer, bias_pointer, output_pointers,
        row_mask, columns + half, out_feat_dim, output_column_stride, norm_scale, floor,
        HAS_BIAS, SPHERICAL, NEGATIVE,
    )  # fmt: skip
