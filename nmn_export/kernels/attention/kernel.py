"""YatAttention's kernel: online softmax over blocks of keys. Scores never leave the registers.

Arguments: see the table in `nmn_export.kernels`.

The query heads that share a key head are rows of one tile, so that keys and values are read once
for all of them: row r is query r // group_dim of head r % group_dim of the group.
"""

import triton
import triton.language as tl

from nmn_export.kernels.attention.scores import (
    HIDDEN,
    exponents,
    key_norms,
    key_product,
    load_features,
    scale_and_norm,
)
from nmn_export.kernels.attention.softmax import add_block, nothing_seen, store_output
from nmn_export.kernels.attention.split_keys import merge_parts
from nmn_export.kernels.load_store import load_tile, square_sum


@triton.jit
def key_range(
    row_start, row_dim, group_dim, causal_offset, key_end,
    WHOLE: tl.constexpr, SPLIT: tl.constexpr,
    BLOCK_SIZE_M: tl.constexpr, BLOCK_SIZE_N: tl.constexpr,
):  # fmt: skip
    """Return the first key of a program, the end of the blocks that all rows see, and its last key.

    The end of a range is one past its last key. Without WHOLE, the blocks that all rows see are not
    told from the others.
    """
    last_row = tl.minimum(row_start + BLOCK_SIZE_M, row_dim) - 1
    end = tl.maximum(tl.minimum(last_row // group_dim + causal_offset + 1, key_end), 0)
    whole_end = tl.minimum(row_start // group_dim + causal_offset + 1, key_end)
    whole_end = tl.maximum(whole_end, 0) // BLOCK_SIZE_N * BLOCK_SIZE_N
    begin = 0
    if SPLIT:
        share = tl.cdiv(tl.cdiv(end, BLOCK_SIZE_N), tl.num_programs(1)) * BLOCK_SIZE_N
        begin = tl.program_id(1) * share
        end = tl.minimum(begin + share, end)
        whole_end = tl.minimum(tl.maximum(whole_end, begin), end)
    if not WHOLE:
        whole_end = begin
    return begin, whole_end, end


@triton.jit
def row_pointers(pointer, batch, head, row, batch_stride, head_stride, row_stride):
    """Return where rows of heads begin. `head` and `row` must be of shape [BLOCK_SIZE_M]."""
    return pointer + batch * batch_stride + head * head_stride + row.to(tl.int64) * row_stride


@triton.jit
def yat_attention_forward_kernel(
    query_pointer, key_pointer, value_pointer, mask_pointer, key_norm_pointer, key_length_pointer,
    output_pointer, partial_pointer, partial_sum_pointer, arrival_pointer,
    key_head_dim, group_dim, query_dim, key_dim, feat_dim, value_feat_dim, causal_offset,
    query_batch_stride, query_head_stride, query_row_stride,
    key_batch_stride, key_head_stride, key_row_stride,
    value_batch_stride, value_head_stride, value_row_stride,
    mask_batch_stride, mask_head_stride, mask_row_stride, mask_key_stride,
    norm_batch_stride, norm_head_stride, norm_row_stride,
    output_batch_stride, output_head_stride, output_row_stride,
    norm_scale, floor, mask_scale, spherical, epsilon, sign, power, negative_factor,
    start_exponent, start_sum,
    HAS_MASK: tl.constexpr, OPTIONS: tl.constexpr, SPLIT: tl.constexpr,
    PLANES: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_SIZE_M: tl.constexpr, BLOCK_SIZE_N: tl.constexpr, BLOCK_SIZE_K: tl.constexpr,
    BLOCK_SIZE_FEAT: tl.constexpr, BLOCK_SIZE_VALUE_FEAT: tl.constexpr,
):  # fmt: skip
    """Compute YatAttention.

    A program is a tile of rows (first grid axis) and, with SPLIT, a part of its keys (second).

    The queries are [batch, key_head_dim · group_dim, query_dim, feat_dim], the keys
    [batch, key_head_dim, key_dim, feat_dim], the values [batch, key_head_dim, key_dim,
    value_feat_dim] and the output [batch, key_head_dim · group_dim, query_dim, value_feat_dim]. The
    last axis of each has stride 1. The mask broadcasts to [batch, key_head_dim · group_dim,
    query_dim, key_dim] by strides of 0; without HAS_MASK it is one number, or there is none.
    """
    row_dim = query_dim * group_dim
    row_blocks = tl.cdiv(row_dim, BLOCK_SIZE_M)
    head = tl.program_id(0) // row_blocks
    # With a causal mask, the last rows have the most keys. They start first.
    row_start = (row_blocks - 1 - tl.program_id(0) % row_blocks) * BLOCK_SIZE_M
    batch, head = (head // key_head_dim).to(tl.int64), (head % key_head_dim).to(tl.int64)
    row_mask = row_start + tl.arange(0, BLOCK_SIZE_M) < row_dim
    row = tl.minimum(row_start + tl.arange(0, BLOCK_SIZE_M), row_dim - 1)
    query, query_head = row // group_dim, head * group_dim + row % group_dim

    key_end, row_shift = key_dim, 0.0
    if key_length_pointer is not None:
        key_end = tl.minimum(key_dim, tl.load(key_length_pointer + batch))
    if not HAS_MASK and mask_pointer is not None:
        # One number that is added to all scores changes no weight, unless it is not finite.
        shift = tl.load(mask_pointer).to(tl.float32)
        key_end = tl.where(shift == HIDDEN, 0, key_end)
        row_shift = shift * 0.0
    # A second loop would not pay with a mask or options.
    WHOLE: tl.constexpr = not (HAS_MASK or OPTIONS)
    begin, whole_end, end = key_range(
        row_start, row_dim, group_dim, causal_offset, key_end,
        WHOLE, SPLIT, BLOCK_SIZE_M, BLOCK_SIZE_N,
    )  # fmt: skip

    key_pointer += batch * key_batch_stride + head * key_head_stride
    value_pointer += batch * value_batch_stride + head * value_head_stride
    query_pointers = row_pointers(
        query_pointer, batch, query_head, query,
        query_batch_stride, query_head_stride, query_row_stride,
    )  # fmt: skip
    mask_pointers = query_pointers
    if HAS_MASK:
        mask_pointers = row_pointers(
            mask_pointer, batch, query_head, query,
            mask_batch_stride, mask_head_stride, mask_row_stride,
        )  # fmt: skip
    if key_norm_pointer is not None:
        key_norm_pointer += batch * norm_batch_stride + head * norm_head_stride

    q = load_features(query_pointers, 0, feat_dim, BLOCK_SIZE_FEAT, "")
    # Loaded again with another cache modifier, for the reason given at `key_norms`.
    q_again = load_features(query_pointers, 0, feat_dim, BLOCK_SIZE_FEAT, ".ca")
    row_scale, norm = scale_and_norm(square_sum(q_again, PRECISION), spherical, epsilon, OPTIONS)
    row_term = norm * norm_scale + row_shift

    largest, total, acc = nothing_seen(BLOCK_SIZE_M, BLOCK_SIZE_VALUE_FEAT)
    if OPTIONS and tl.program_id(1) == 0:
        # The guard is the weight of a key whose value is zero.
        largest = tl.full([BLOCK_SIZE_M], 0.0, tl.float32) + start_exponent
        total += start_sum

    for phase in tl.static_range(0 if WHOLE else 1, 2):  # blocks that all rows see, then the others
        first, last = (begin, whole_end) if phase == 0 else (whole_end, end)
        for start in tl.range(first, last, BLOCK_SIZE_N):
            dot = key_product(
                q, query_pointers, key_pointer, start, key_end, feat_dim, key_row_stride,
                PLANES, PRECISION, BLOCK_SIZE_N, BLOCK_SIZE_K, BLOCK_SIZE_FEAT,
            )  # fmt: skip
            key_norm = key_norms(
                key_norm_pointer, norm_row_stride, key_pointer, start, key_end, feat_dim,
                key_row_stride, PRECISION, BLOCK_SIZE_N, BLOCK_SIZE_FEAT,
            )  # fmt: skip
            column = start + tl.arange(0, BLOCK_SIZE_N)
            exponent, negative = exponents(
                dot, row_scale, row_term, key_norm, mask_pointers,
                tl.minimum(column, key_end - 1) * mask_key_stride, norm_scale, floor, mask_scale,
                spherical, epsilon, sign, power, HAS_MASK, OPTIONS,
            )  # fmt: skip
            if phase == 1:
                limit = tl.minimum(query + causal_offset + 1, key_end)
                exponent = tl.where(column[None, :] < limit[:, None], exponent, HIDDEN)
            v = load_tile(
                value_pointer, start, 0, key_end, value_feat_dim, value_row_stride,
                BLOCK_SIZE_N, BLOCK_SIZE_VALUE_FEAT, False, False, "",
            )  # fmt: skip
            largest, total, acc = add_block(
                largest, total, acc, exponent, negative, v, negative_factor,
                OPTIONS, PLANES, PRECISION,
            )  # fmt: skip

    is_last = True
    if SPLIT:
        is_last, largest, total, acc = merge_parts(
            largest, total, acc, partial_pointer, partial_sum_pointer, arrival_pointer, row_mask
        )
    if is_last:
        output_pointers = row_pointers(
            output_pointer, batch, query_head, query,
            output_batch_stride, output_head_stride, output_row_stride,
        )  # fmt: skip
        store_output(largest, total, acc, output_pointers, row_mask, value_feat_dim)
