"""YatDense's kernels: a persistent one, and a split-K one for outputs of few tiles.

Arguments: see the table in `nmn_export.kernels`.
"""

import triton
import triton.language as tl

from nmn_export.kernels.load_store import load_tile, load_weight, square_sum, store_tile
from nmn_export.kernels.yat import split_product

NORM_STAGES: tl.constexpr = tl.constexpr(4)
"""Stages of the loop that computes norms. Without a product, Triton pipelines only if asked."""


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
    """Compute YatDense with persistent programs, each of which computes many tiles.

    If ROW_STATIONARY, a program computes all tiles of a row block in turn and computes the norms of
    its rows in a separate loop. Otherwise it reads them from `norm_pointer` [batch_dim], and
    GROUP_SIZE_M row blocks share their columns in the L2 cache.

    A tile that feeds a product is never squared from registers: the compiler (Triton 3.7.1)
    would then give it one shared-memory buffer too few on sm_90.

    The input is [batch_dim, in_feat_dim], the weight [PLANES · out_feat_dim, in_feat_dim], the
    output [batch_dim, out_feat_dim].
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
def yat_dense_split_forward_kernel(
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
    """Compute YatDense with several programs per tile, each for a part of the features.

    A program is a tile (first grid axis) and a part (second). The ⵟ-product is not linear in the
    dot product, so parts are written in float32. The program that finishes last adds them in a
    fixed order, so results are the same bits in every run.

    The shapes of input, weight and output are those of `yat_dense_forward_kernel`.
    `partial_pointer` is scratch memory for dot products, float32 [tiles, parts, BLOCK_SIZE_M,
    BLOCK_SIZE_N]. `partial_norm_pointer` is scratch memory for norms, float32 [tiles, parts,
    BLOCK_SIZE_M]. `arrival_pointer` is int32 [tiles], zero before and after.
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
        # Loaded again with another cache modifier, for the reason given in the kernel above.
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
        tl.debug_barrier()  # all threads store before one of them counts
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
