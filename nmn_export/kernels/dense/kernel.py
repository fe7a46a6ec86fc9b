"""YatDense's kernels: a persistent one, and a split-K one for when there are too few tiles."""

import triton
import triton.language as tl

from nmn_export.kernels.tiles import load_tile, load_weight, square_sum, store_tile
from nmn_export.kernels.yat import split_product

NORM_STAGES: tl.constexpr = tl.constexpr(4)
"""Of the loop that takes norms: without a product in it, Triton copies ahead only when told to."""


@triton.jit
def yat_dense_forward_kernel(
    input_source,
    norm_pointer,
    weight_source,
    column_term_pointer,
    column_scale_pointer,
    bias_pointer,
    output_pointer,
    batch_dim,
    out_feat_dim,
    in_feat_dim,
    input_batch_stride,
    weight_out_feat_stride,
    output_batch_stride,
    norm_scale,
    floor,
    HAS_BIAS: tl.constexpr,
    SPHERICAL: tl.constexpr,
    NEGATIVE: tl.constexpr,
    PLANES: tl.constexpr,
    PRECISION: tl.constexpr,
    DESCRIPTOR: tl.constexpr,
    EVEN: tl.constexpr,
    ROW_STATIONARY: tl.constexpr,
    BLOCK_SIZE_M: tl.constexpr,
    BLOCK_SIZE_N: tl.constexpr,
    BLOCK_SIZE_K: tl.constexpr,
    GROUP_SIZE_M: tl.constexpr,
):
    """Compute YatDense with programs that stay and take tile after tile.

    Row-stationary programs walk along their rows and take the norms of the input in a loop of its
    own. A tile that feeds a product is never squared from registers: the compiler (Triton 3.7.1)
    would then give it one shared-memory buffer too few on sm_90.

    Args:
        input_source: Pointer to the input or its tensor descriptor. Must be of shape
            [batch_dim, in_feat_dim].
        norm_pointer: ‖x‖², float32, not used if `ROW_STATIONARY`. Must be of shape [batch_dim].
        weight_source: Pointer to the planes of the weight or their tensor descriptor. Must be of
            shape [PLANES · out_feat_dim, in_feat_dim].
        column_term_pointer: As in `store_tile`, and so every argument not listed.
        column_scale_pointer: Must be of shape [out_feat_dim].
        bias_pointer: Must be of shape [out_feat_dim].
        output_pointer: Pointer to the output. Must be of shape [batch_dim, out_feat_dim].
        batch_dim: Rows of the input.
        out_feat_dim: Rows of the weight.
        in_feat_dim: Features of both.
        input_batch_stride: Elements from one row of the input to the next.
        weight_out_feat_stride: The same of the weight.
        output_batch_stride: The same of the output.
        norm_scale: 1 / |α|.
        floor: ε / |α|.
        HAS_BIAS: Whether there is a bias.
        SPHERICAL: Whether rows and weights are divided by their norms.
        NEGATIVE: Whether α < 0.
        PLANES: Planes of the weight, as in `split_product`.
        PRECISION: As in `product`.
        DESCRIPTOR: Whether the sources are descriptors.
        EVEN: Whether `in_feat_dim` is a multiple of `BLOCK_SIZE_K`.
        ROW_STATIONARY: Whether a program stays with its rows and takes their norms.
        BLOCK_SIZE_M: Rows of a tile.
        BLOCK_SIZE_N: Columns of a tile.
        BLOCK_SIZE_K: Features per step.
        GROUP_SIZE_M: Row blocks that share their columns in the L2 cache, if not row-stationary.
    """
    row_blocks = tl.cdiv(batch_dim, BLOCK_SIZE_M)
    column_blocks = tl.cdiv(out_feat_dim, BLOCK_SIZE_N)
    first, last, step = tl.program_id(0), row_blocks * column_blocks, tl.num_programs(0)
    if ROW_STATIONARY:
        share = tl.cdiv(last, step)
        first *= share
        last = tl.minimum(first + share, last)
        step = 1
    norm = tl.zeros([BLOCK_SIZE_M], tl.float32)
    norm_row_block = -1
    for tile in tl.range(first, last, step):
        row_block, column_block = tile // column_blocks, tile % column_blocks
        if not ROW_STATIONARY:
            row_block, column_block = tl.swizzle2d(
                row_block, column_block, row_blocks, column_blocks, GROUP_SIZE_M
            )
        row_start, column_start = row_block * BLOCK_SIZE_M, column_block * BLOCK_SIZE_N
        rows = row_start + tl.arange(0, BLOCK_SIZE_M)
        if not ROW_STATIONARY:
            norm = tl.load(norm_pointer + tl.minimum(rows, batch_dim - 1))
        elif row_block != norm_row_block:
            norm = tl.zeros([BLOCK_SIZE_M], tl.float32)
            for k in tl.range(0, in_feat_dim, BLOCK_SIZE_K, num_stages=NORM_STAGES):
                x = load_tile(
                    input_source, row_start, k, batch_dim, in_feat_dim, input_batch_stride,
                    BLOCK_SIZE_M, BLOCK_SIZE_K, DESCRIPTOR, EVEN, "",
                )  # fmt: skip
                norm += square_sum(x, PRECISION)
            norm_row_block = row_block
        dot = tl.zeros([BLOCK_SIZE_M, BLOCK_SIZE_N], tl.float32)
        for k in tl.range(0, in_feat_dim, BLOCK_SIZE_K):
            x = load_tile(
                input_source, row_start, k, batch_dim, in_feat_dim, input_batch_stride,
                BLOCK_SIZE_M, BLOCK_SIZE_K, DESCRIPTOR, EVEN, "",
            )  # fmt: skip
            high, middle, low = load_weight(
                weight_source, column_start, k, out_feat_dim, in_feat_dim, weight_out_feat_stride,
                BLOCK_SIZE_N, BLOCK_SIZE_K, PLANES, DESCRIPTOR, EVEN,
            )  # fmt: skip
            dot = split_product(x, high.T, middle.T, low.T, dot, PLANES, PRECISION)
        store_tile(
            dot, norm, column_term_pointer, column_scale_pointer, bias_pointer,
            output_pointer + rows.to(tl.int64) * output_batch_stride, rows < batch_dim,
            column_start, out_feat_dim, 1, norm_scale, floor, HAS_BIAS, SPHERICAL, NEGATIVE,
        )  # fmt: skip


@triton.jit
def yat_dense_split_forward_kernel(  # noqa: D417  the others are those of the kernel above
    input_pointer,
    weight_pointer,
    column_term_pointer,
    column_scale_pointer,
    bias_pointer,
    output_pointer,
    partial_pointer,
    partial_norm_pointer,
    arrival_pointer,
    batch_dim,
    out_feat_dim,
    in_feat_dim,
    input_batch_stride,
    weight_out_feat_stride,
    output_batch_stride,
    norm_scale,
    floor,
    HAS_BIAS: tl.constexpr,
    SPHERICAL: tl.constexpr,
    NEGATIVE: tl.constexpr,
    PLANES: tl.constexpr,
    PRECISION: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK_SIZE_M: tl.constexpr,
    BLOCK_SIZE_N: tl.constexpr,
    BLOCK_SIZE_K: tl.constexpr,
):
    """Compute YatDense with several programs to a tile, each taking a part of the features.

    The ⵟ-product of a sum is no sum of ⵟ-products, so parts are written in float32, and the last
    program to arrive adds them in a fixed order, whichever it is: results repeat bit by bit.

    Args:
        input_pointer: Pointer to the input. Must be of shape [batch_dim, in_feat_dim].
        weight_pointer: Pointer to the planes of the weight. Must be of shape
            [PLANES · out_feat_dim, in_feat_dim].
        column_term_pointer: As in `yat_dense_forward_kernel`, and so every argument not listed.
        column_scale_pointer: Must be of shape [out_feat_dim].
        bias_pointer: Must be of shape [out_feat_dim].
        output_pointer: Must be of shape [batch_dim, out_feat_dim].
        partial_pointer: Room for dot products, float32. Must be of shape [tiles, parts,
            BLOCK_SIZE_M, BLOCK_SIZE_N]. A tile and a part are what a program is.
        partial_norm_pointer: Room for norms, float32. Must be of shape [tiles, parts,
            BLOCK_SIZE_M].
        arrival_pointer: Zeros, int32, and left so. Must be of shape [tiles].
    """
    tile, part, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    column_blocks = tl.cdiv(out_feat_dim, BLOCK_SIZE_N)
    row_start = tile // column_blocks * BLOCK_SIZE_M
    column_start = tile % column_blocks * BLOCK_SIZE_N
    share = tl.cdiv(tl.cdiv(in_feat_dim, BLOCK_SIZE_K), parts) * BLOCK_SIZE_K
    norm = tl.zeros([BLOCK_SIZE_M], tl.float32)
    dot = tl.zeros([BLOCK_SIZE_M, BLOCK_SIZE_N], tl.float32)
    for k in tl.range(part * share, tl.minimum((part + 1) * share, in_feat_dim), BLOCK_SIZE_K):
        x = load_tile(
            input_pointer, row_start, k, batch_dim, in_feat_dim, input_batch_stride,
            BLOCK_SIZE_M, BLOCK_SIZE_K, False, EVEN, "",
        )  # fmt: skip
        # A second load under another cache modifier: see the kernel above for why.
        x_again = load_tile(
            input_pointer, row_start, k, batch_dim, in_feat_dim, input_batch_stride,
            BLOCK_SIZE_M, BLOCK_SIZE_K, False, EVEN, ".ca",
        )  # fmt: skip
        high, middle, low = load_weight(
            weight_pointer, column_start, k, out_feat_dim, in_feat_dim, weight_out_feat_stride,
            BLOCK_SIZE_N, BLOCK_SIZE_K, PLANES, False, EVEN,
        )  # fmt: skip
        norm += square_sum(x_again, PRECISION)
        dot = split_product(x, high.T, middle.T, low.T, dot, PLANES, PRECISION)

    row_offset = tl.arange(0, BLOCK_SIZE_M)
    offset = row_offset[:, None] * BLOCK_SIZE_N + tl.arange(0, BLOCK_SIZE_N)[None, :]
    slot = (tile * parts).to(tl.int64)
    arrived = 0
    if parts > 1:
        mine = slot + part
        tl.store(partial_pointer + mine * BLOCK_SIZE_M * BLOCK_SIZE_N + offset, dot)
        tl.store(partial_norm_pointer + mine * BLOCK_SIZE_M + row_offset, norm)
        tl.debug_barrier()  # all threads have stored before one of them says so
        arrived = tl.atomic_add(arrival_pointer + tile, 1, sem="acq_rel")
    if arrived == parts - 1:
        if parts > 1:
            norm = tl.zeros([BLOCK_SIZE_M], tl.float32)
            dot = tl.zeros([BLOCK_SIZE_M, BLOCK_SIZE_N], tl.float32)
            for other in range(parts):
                theirs = slot + other
                pointers = partial_pointer + theirs * BLOCK_SIZE_M * BLOCK_SIZE_N + offset
                dot += tl.load(pointers, cache_modifier=".cg")
                pointers = partial_norm_pointer + theirs * BLOCK_SIZE_M + row_offset
                norm += tl.load(pointers, cache_modifier=".cg")
            tl.store(arrival_pointer + tile, 0)
        rows = row_start + row_offset
        store_tile(
            dot, norm, column_term_pointer, column_scale_pointer, bias_pointer,
            output_pointer + rows.to(tl.int64) * output_batch_stride, rows < batch_dim,
            column_start, out_feat_dim, 1, norm_scale, floor, HAS_BIAS, SPHERICAL, NEGATIVE,
        )  # fmt: skip
