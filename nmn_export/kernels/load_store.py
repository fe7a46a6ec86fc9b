"""Loads and stores of tiles, shared by the kernels. Arguments: see the table in the package."""

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
    """Load a tile of a matrix. Beyond the last feature it is zero, beyond the last row finite.

    Args:
        source: Pointer to the matrix, or its tensor descriptor if `DESCRIPTOR`, whose block has
            the shape of the tile. Must be of shape [row_dim, feat_dim], the last axis of stride 1.
        row_start: First row of the tile.
        feat_start: First feature of the tile.
        row_dim: Rows of the matrix.
        feat_dim: Features of the matrix.
        row_stride: Elements from one row to the next.
        BLOCK_SIZE_ROW: Rows of the tile.
        BLOCK_SIZE_FEAT: Features of the tile.
        DESCRIPTOR: Whether `source` is a descriptor.
        EVEN: Whether `feat_dim` is a multiple of `BLOCK_SIZE_FEAT`.
        CACHE: Cache modifier. The compiler does not merge two loads that differ in it.
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
    """Load a tile of every plane of the weight. Planes beyond `PLANES` repeat the first.

    `source` is of shape [PLANES · row_dim, feat_dim], where `row_dim` is the number of rows of one
    plane. The other arguments are those of `load_tile`.
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
    """Return the squared norms of the rows of `x` [BLOCK_SIZE_M, BLOCK_SIZE_K], in float32.

    They are those of the values that a product of this `PRECISION` reads.
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
    """Store the columns `column_offset` of a tile; other arguments are those of `store_tile`."""
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
    """Compute a tile of outputs from its dot products and the norms of its rows, and store it.

    The tile is stored in two halves. The terms of 128 columns do not fit the 128 registers per
    thread that let two programs of 256 threads share an SM.

    Args:
        dot: ⟨x, w⟩, float32. Must be of shape [BLOCK_SIZE_M, BLOCK_SIZE_N].
        norm: ‖x‖², float32. Must be of shape [BLOCK_SIZE_M].
        column_term_pointer: See the table in `nmn_export.kernels`.
        column_scale_pointer: See the table.
        bias_pointer: See the table.
        output_pointers: To the rows of the output. Must be of shape [BLOCK_SIZE_M].
        row_mask: Which rows to store. Must be of shape [BLOCK_SIZE_M].
        column_start: First column of the tile.
        out_feat_dim: Columns of the output; columns from this one on are not stored.
        output_column_stride: Elements from one column of the output to the next.
        norm_scale: See the table.
        floor: See the table.
        HAS_BIAS: See the table.
        SPHERICAL: See the table.
        NEGATIVE: See the table.
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
