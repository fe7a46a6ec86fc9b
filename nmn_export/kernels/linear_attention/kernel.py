"""Kernels of causal linear attention: sums before every chunk, then the outputs of all chunks.

Arguments of the kernels:

    q_pointer               features of the queries, [head_dim, length, feat_dim]
    k_pointer               features of the keys, [head_dim, length, feat_dim]
    value_pointer           values, [head_dim, length, value_dim]
    sum_pointer             float32 [head_dim, chunks, feat_dim, value_dim], for every chunk the
                            sum of φ(k) ⊗ v over the earlier chunks of its segment
    k_sum_pointer           float32 [head_dim, chunks, feat_dim], the same sum of φ(k)
    segment_sum_pointer     float32 [head_dim, segments, feat_dim, value_dim], sums of segments
                            (of earlier segments, for the outputs)
    segment_k_sum_pointer   float32 [head_dim, segments, feat_dim], the same of φ(k)
    output_pointer          outputs, [head_dim, length, value_dim]
    length                  tokens of a sequence
    feat_dim                features
    value_dim               features of a value
    chunks                  chunks of a sequence
    segment_chunks          chunks of a segment
    epsilon                 guard of the denominator
    signed_guard            whether the guard has the sign of the denominator
    PRECISION               "tf32", or "tf32x3" for three products, as accurate as float32
    BLOCK_SIZE_M            tokens per chunk
    BLOCK_SIZE_N            value features per tile
    BLOCK_SIZE_K            features per tile or step

All tensors are contiguous. `head_dim` is the number of heads of all sequences. The sums are in
float32, so they do not overflow where features or values are in half precision.
"""

import triton
import triton.language as tl

from nmn_export.kernels.yat import saturate


@triton.jit
def load_tile(
    pointer,
    row_start,
    row_dim,
    column_start,
    column_dim,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Load a tile of a matrix as float32, with zeros beyond its last row and column."""
    rows = row_start + tl.arange(0, ROWS)
    columns = column_start + tl.arange(0, COLUMNS)
    pointers = pointer + rows.to(tl.int64)[:, None] * column_dim + columns[None, :]
    mask = (rows < row_dim)[:, None] & (columns < column_dim)[None, :]
    return tl.load(pointers, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def store_tile(
    pointer,
    tile,
    row_start,
    row_dim,
    column_start,
    column_dim,
):
    """Store a tile of a matrix, without what is beyond its last row and column."""
    rows = row_start + tl.arange(0, tile.shape[0])
    columns = column_start + tl.arange(0, tile.shape[1])
    pointers = pointer + rows.to(tl.int64)[:, None] * column_dim + columns[None, :]
    mask = (rows < row_dim)[:, None] & (columns < column_dim)[None, :]
    tl.store(pointers, saturate(tile, pointer.dtype.element_ty), mask=mask)


@triton.jit
def linear_attention_sum_kernel(
    k_pointer,
    value_pointer,
    sum_pointer,
    k_sum_pointer,
    segment_sum_pointer,
    segment_k_sum_pointer,
    length,
    feat_dim,
    value_dim,
    chunks,
    segment_chunks,
    PRECISION: tl.constexpr,
    BLOCK_SIZE_M: tl.constexpr,
    BLOCK_SIZE_N: tl.constexpr,
    BLOCK_SIZE_K: tl.constexpr,
):
    """Write the sums before every chunk of a segment, and the sums of the whole segment.

    A program walks the chunks of a segment (second grid axis) for one tile of one head (first).
    """
    value_blocks = tl.cdiv(value_dim, BLOCK_SIZE_N)
    tiles = tl.cdiv(feat_dim, BLOCK_SIZE_K) * value_blocks
    head, tile = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    feat_start = tile // value_blocks * BLOCK_SIZE_K
    value_start = tile % value_blocks * BLOCK_SIZE_N
    segment = tl.program_id(1)
    k_pointer += head * length * feat_dim
    value_pointer += head * length * value_dim
    sums = tl.zeros([BLOCK_SIZE_K, BLOCK_SIZE_N], tl.float32)
    k_sums = tl.zeros([BLOCK_SIZE_K], tl.float32)
    feats = feat_start + tl.arange(0, BLOCK_SIZE_K)
    k_sum_mask = (feats < feat_dim) & (value_start == 0)
    first = segment * segment_chunks
    for chunk in range(first, tl.minimum(first + segment_chunks, chunks)):
        slot = head * chunks + chunk
        store_tile(
            sum_pointer + slot * feat_dim * value_dim, sums,
            feat_start, feat_dim, value_start, value_dim,
        )  # fmt: skip
        tl.store(k_sum_pointer + slot * feat_dim + feats, k_sums, mask=k_sum_mask)
        start = chunk * BLOCK_SIZE_M
        k = load_tile(
            k_pointer, start, length, feat_start, feat_dim, BLOCK_SIZE_M, BLOCK_SIZE_K
        )  # fmt: skip
        v = load_tile(
            value_pointer, start, length, value_start, value_dim, BLOCK_SIZE_M, BLOCK_SIZE_N
        )  # fmt: skip
        sums = tl.dot(k.T, v, sums, input_precision=PRECISION)
        k_sums += tl.sum(k, 0)
    slot = head * tl.num_programs(1) + segment
    store_tile(
        segment_sum_pointer + slot * feat_dim * value_dim, sums,
        feat_start, feat_dim, value_start, value_dim,
    )  # fmt: skip
    tl.store(segment_k_sum_pointer + slot * feat_dim + feats, k_sums, mask=k_sum_mask)


@triton.jit
def causal_linear_attention_kernel(
    q_pointer,
    k_pointer,
    value_pointer,
    sum_pointer,
    k_sum_pointer,
    segment_sum_pointer,
    segment_k_sum_pointer,
    output_pointer,
    length,
    feat_dim,
    value_dim,
    chunks,
    segment_chunks,
    epsilon,
    signed_guard,
    PRECISION: tl.constexpr,
    BLOCK_SIZE_M: tl.constexpr,
    BLOCK_SIZE_N: tl.constexpr,
    BLOCK_SIZE_K: tl.constexpr,
):
    """Write the outputs of a chunk, from the sums before it and its own weights.

    A program is a tile of values of one head (first grid axis) and a chunk (second). A later token
    takes part in no sum that an earlier one reads, so it does not change one bit there.
    """
    value_blocks = tl.cdiv(value_dim, BLOCK_SIZE_N)
    head = (tl.program_id(0) // value_blocks).to(tl.int64)
    value_start = tl.program_id(0) % value_blocks * BLOCK_SIZE_N
    chunk = tl.program_id(1)
    start = chunk * BLOCK_SIZE_M
    slot = head * chunks + chunk
    segment = chunk // segment_chunks
    segment_slot = head * tl.cdiv(chunks, segment_chunks) + segment
    q_pointer += head * length * feat_dim
    k_pointer += head * length * feat_dim
    value_pointer += head * length * value_dim
    weights = tl.zeros([BLOCK_SIZE_M, BLOCK_SIZE_M], tl.float32)
    out = tl.zeros([BLOCK_SIZE_M, BLOCK_SIZE_N], tl.float32)
    denominator = tl.zeros([BLOCK_SIZE_M], tl.float32)
    for feat_start in range(0, feat_dim, BLOCK_SIZE_K):
        q = load_tile(q_pointer, start, length, feat_start, feat_dim, BLOCK_SIZE_M, BLOCK_SIZE_K)
        k = load_tile(k_pointer, start, length, feat_start, feat_dim, BLOCK_SIZE_M, BLOCK_SIZE_K)
        sums = load_tile(
            sum_pointer + slot * feat_dim * value_dim,
            feat_start, feat_dim, value_start, value_dim, BLOCK_SIZE_K, BLOCK_SIZE_N,
        )  # fmt: skip
        feats = feat_start + tl.arange(0, BLOCK_SIZE_K)
        k_sums = tl.load(k_sum_pointer + slot * feat_dim + feats, mask=feats < feat_dim, other=0.0)
        # The first segment has nothing before it, so its loads are masked.
        known_feats = tl.where(segment > 0, feat_dim, 0)
        sums += load_tile(
            segment_sum_pointer + segment_slot * feat_dim * value_dim,
            feat_start, known_feats, value_start, value_dim, BLOCK_SIZE_K, BLOCK_SIZE_N,
        )  # fmt: skip
        k_sums += tl.load(
            segment_k_sum_pointer + segment_slot * feat_dim + feats,
            mask=feats < known_feats, other=0.0,
        )  # fmt: skip
        weights = tl.dot(q, k.T, weights, input_precision=PRECISION)
        out = tl.dot(q, sums, out, input_precision=PRECISION)
        denominator += tl.sum(q * k_sums[None, :], 1)
    token = tl.arange(0, BLOCK_SIZE_M)
    weights = tl.where(token[:, None] < token[None, :], 0.0, weights)
    v = load_tile(
        value_pointer, start, length, value_start, value_dim, BLOCK_SIZE_M, BLOCK_SIZE_N
    )  # fmt: skip
    out = tl.dot(weights, v, out, input_precision=PRECISION)
    denominator += tl.sum(weights, 1)
    guard = tl.where((signed_guard != 0) & (denominator < 0), -epsilon, epsilon)
    out = out / (denominator + guard)[:, None]
    store_tile(
        output_pointer + head * length * value_dim, out, start, length, value_start, value_dim
    )  # fmt: skip
