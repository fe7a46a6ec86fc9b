"""YatAttention's kernel: online softmax over blocks of keys. Scores never leave the registers.

Arguments: see the table in `nmn_export.kernels`. The exponent of a score is log2 of the weight of
its value, before the weights are divided by their sum.

The query heads that share a key head are rows of one tile, so that keys and values are read once
for all of them: row r is query r // group_dim of head r % group_dim of the group.
"""

import triton
import triton.language as tl

from nmn_export.kernels.attention.options import LOWEST_EXPONENT
from nmn_export.kernels.attention.split_keys import merge_parts, store_part
from nmn_export.kernels.load_store import load_tile, square_sum
from nmn_export.kernels.yat import (
    INTERPRETED,
    cast,
    saturate,
    split,
    split_product,
    truncate_to_tf32,
    yat,
)

LOWEST: tl.constexpr = tl.constexpr(LOWEST_EXPONENT)

HIDDEN: tl.constexpr = tl.constexpr(float("-inf"))
"""Exponent of the score of a key that a query does not attend to."""


@triton.jit
def product_of_inputs(x, y, dot, PLANES: tl.constexpr, PRECISION: tl.constexpr):
    """Return `dot` + x · y. Neither operand is prepared; otherwise it is `split_product`."""
    if INTERPRETED and PRECISION == "tf32":
        y = truncate_to_tf32(y)
    high, middle, low = split(y, PLANES)
    return split_product(x, high, middle, low, dot, PLANES, PRECISION)


@triton.jit
def load_features(pointers, feat_start, feat_dim, BLOCK_SIZE: tl.constexpr, CACHE: tl.constexpr):
    """Load features of rows; beyond the last feature they are zero.

    `pointers` point to the first feature of each row and are of shape [rows].
    """
    feats = feat_start + tl.arange(0, BLOCK_SIZE)
    mask = (feats < feat_dim)[None, :]
    return tl.load(pointers[:, None] + feats[None, :], mask=mask, other=0.0, cache_modifier=CACHE)


@triton.jit
def exponents(
    score, mask, mask_scale, sign, power, HAS_MASK: tl.constexpr, OPTIONS: tl.constexpr
):  # fmt: skip
    """Return the exponents of scores, and which of the scores are negative.

    Args:
        score: α' times the ⵟ-product, where α' is |α| / ln 2, or |α| if there is a power. Must be
            of shape [BLOCK_SIZE_M, BLOCK_SIZE_N], as are the results.
        mask: The mask. Must be of the shape of `score`; not used unless HAS_MASK.
        mask_scale: See the table.
        sign: See the table.
        power: See the table.
        HAS_MASK: See the table.
        OPTIONS: See the table.
    """
    if OPTIONS:
        score = score * sign
    if HAS_MASK:
        score = score + mask * mask_scale
    exponent = score
    if OPTIONS:
        exponent = tl.where(power > 0, power * tl.log2(tl.abs(score)), score)
    if HAS_MASK:
        # The product of a large finite number with the scale is infinite, but hides no key.
        exponent = tl.maximum(exponent, LOWEST, propagate_nan=tl.PropagateNan.ALL)
        exponent = tl.where(mask == HIDDEN, HIDDEN, exponent)
    return exponent, score < 0


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
    """Compute YatAttention. A program is a tile of rows (first grid axis), and with SPLIT a part of
    its keys (second).

    Parts are written in float32. The program that finishes last merges them in a fixed order.

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

    key_end = key_dim
    if key_length_pointer is not None:
        key_end = tl.minimum(key_dim, tl.load(key_length_pointer + batch))
    row_shift = 0.0
    if not HAS_MASK and mask_pointer is not None:
        # One number added to all scores changes no weight, unless it is not finite.
        shift = tl.load(mask_pointer).to(tl.float32)
        key_end = tl.where(shift == HIDDEN, 0, key_end)
        row_shift = shift * 0.0
    last_query = tl.minimum(row_start + BLOCK_SIZE_M, row_dim) - 1
    last_query = last_query // group_dim
    end = tl.maximum(tl.minimum(last_query + causal_offset + 1, key_end), 0)
    whole_end = tl.minimum(row_start // group_dim + causal_offset + 1, key_end)
    whole_end = tl.maximum(whole_end, 0) // BLOCK_SIZE_N * BLOCK_SIZE_N
    begin, part, parts = 0, 0, 1
    if SPLIT:
        part, parts = tl.program_id(1), tl.num_programs(1)
        share = tl.cdiv(tl.cdiv(end, BLOCK_SIZE_N), parts) * BLOCK_SIZE_N
        begin = part * share
        end = tl.minimum(begin + share, end)
        whole_end = tl.minimum(tl.maximum(whole_end, begin), end)

    query_pointers = query_pointer + batch * query_batch_stride
    query_pointers += query_head * query_head_stride + query.to(tl.int64) * query_row_stride
    mask_pointers = query_pointers
    if HAS_MASK:
        mask_pointers = mask_pointer + batch * mask_batch_stride
        mask_pointers += query_head * mask_head_stride + query.to(tl.int64) * mask_row_stride
    key_pointer += batch * key_batch_stride + head * key_head_stride
    value_pointer += batch * value_batch_stride + head * value_head_stride
    if key_norm_pointer is not None:
        key_norm_pointer += batch * norm_batch_stride + head * norm_head_stride

    q = load_features(query_pointers, 0, feat_dim, BLOCK_SIZE_FEAT, "")
    # Loaded again with another cache modifier: an operand of a product is not squared, see
    # `yat_dense_forward_kernel`.
    q_again = load_features(query_pointers, 0, feat_dim, BLOCK_SIZE_FEAT, ".ca")
    query_norm = square_sum(q_again, PRECISION)
    row_scale = tl.full([BLOCK_SIZE_M], 1.0, tl.float32)
    if OPTIONS:
        row_scale = tl.where(spherical != 0, tl.rsqrt(query_norm + epsilon), 1.0)
        query_norm = tl.where(spherical != 0, 1.0, query_norm)
    row_term = query_norm * norm_scale + row_shift

    largest = tl.full([BLOCK_SIZE_M], LOWEST, tl.float32)
    total = tl.zeros([BLOCK_SIZE_M], tl.float32)
    acc = tl.zeros([BLOCK_SIZE_M, BLOCK_SIZE_VALUE_FEAT], tl.float32)
    if OPTIONS:
        # The guard is the weight of a key whose value is zero.
        largest = tl.where(part == 0, largest * 0.0 + start_exponent, largest)
        total = tl.where(part == 0, total + start_sum, total)

    # First the blocks that all rows see to their end, then the others.
    for phase in tl.static_range(2):
        first = begin if phase == 0 else whole_end
        last = whole_end if phase == 0 else end
        for start in tl.range(first, last, BLOCK_SIZE_N):
            column = start + tl.arange(0, BLOCK_SIZE_N)
            dot = tl.zeros([BLOCK_SIZE_M, BLOCK_SIZE_N], tl.float32)
            if BLOCK_SIZE_K == BLOCK_SIZE_FEAT:
                k = load_tile(
                    key_pointer, start, 0, key_end, feat_dim, key_row_stride,
                    BLOCK_SIZE_N, BLOCK_SIZE_FEAT, False, False, "",
                )  # fmt: skip
                dot = product_of_inputs(q, k.T, dot, PLANES, PRECISION)
            else:
                for feat in tl.range(0, feat_dim, BLOCK_SIZE_K):
                    x = load_features(query_pointers, feat, feat_dim, BLOCK_SIZE_K, "")
                    k = load_tile(
                        key_pointer, start, feat, key_end, feat_dim, key_row_stride,
                        BLOCK_SIZE_N, BLOCK_SIZE_K, False, False, "",
                    )  # fmt: skip
                    dot = product_of_inputs(x, k.T, dot, PLANES, PRECISION)
            if key_norm_pointer is None:
                k_again = load_tile(
                    key_pointer, start, 0, key_end, feat_dim, key_row_stride,
                    BLOCK_SIZE_N, BLOCK_SIZE_FEAT, False, False, ".ca",
                )  # fmt: skip
                key_norm = square_sum(k_again, PRECISION)[None, :]
            else:
                pointers = key_norm_pointer + tl.minimum(column, key_end - 1) * norm_row_stride
                key_norm = tl.load(pointers)[None, :]
            if OPTIONS:
                column_scale = tl.where(spherical != 0, tl.rsqrt(key_norm + epsilon), 1.0)
                key_norm = tl.where(spherical != 0, 1.0, key_norm)
                dot = dot * row_scale[:, None] * column_scale
            column_term = key_norm * norm_scale + floor
            score = yat(
                dot, row_term[:, None], column_term, 0.0, -2.0 * norm_scale, floor,
                False, tl.float32,
            )  # fmt: skip
            mask = score
            if HAS_MASK:
                offset = tl.minimum(column, key_end - 1) * mask_key_stride
                mask = tl.load(mask_pointers[:, None] + offset[None, :]).to(tl.float32)
            exponent, negative = exponents(score, mask, mask_scale, sign, power, HAS_MASK, OPTIONS)
            if phase == 1:
                limit = tl.minimum(query + causal_offset + 1, key_end)
                exponent = tl.where(column[None, :] < limit[:, None], exponent, HIDDEN)
            new_largest = tl.maximum(largest, tl.max(exponent, 1))
            weight = tl.exp2(exponent - new_largest[:, None])
            if OPTIONS:
                weight = tl.where(negative & (exponent > HIDDEN), weight * negative_factor, weight)
            correction = tl.exp2(largest - new_largest)
            largest = new_largest
            total = total * correction + tl.sum(weight, 1)
            v = load_tile(
                value_pointer, start, 0, key_end, value_feat_dim, value_row_stride,
                BLOCK_SIZE_N, BLOCK_SIZE_VALUE_FEAT, False, False, "",
            )  # fmt: skip
            acc = product_of_inputs(
                cast(weight, v.dtype), v, acc * correction[:, None], PLANES, PRECISION
            )

    arrived = 0
    if SPLIT:
        slot = (tl.program_id(0) * parts).to(tl.int64)
        if parts > 1:
            store_part(
                partial_pointer, partial_sum_pointer, slot + part, largest, total, acc, row_mask
            )
            tl.debug_barrier()  # all threads store before one of them counts
            arrived = tl.atomic_add(arrival_pointer + tl.program_id(0), 1, sem="acq_rel")
        if parts > 1 and arrived == parts - 1:
            largest, total, acc = merge_parts(
                partial_pointer, partial_sum_pointer, slot, parts,
                tl.full([BLOCK_SIZE_M], LOWEST, tl.float32),
                tl.zeros([BLOCK_SIZE_M], tl.float32),
                tl.zeros([BLOCK_SIZE_M, BLOCK_SIZE_VALUE_FEAT], tl.float32),
                row_mask,
            )  # fmt: skip
            tl.store(arrival_pointer + tl.program_id(0), 0)
    if arrived == parts - 1:
        sees_nothing = (largest == LOWEST) & (total == 0)
        y = acc * (1.0 / tl.where(sees_nothing, 1.0, total))[:, None]
        dtype: tl.constexpr = output_pointer.dtype.element_ty
        output_pointers = output_pointer + batch * output_batch_stride
        output_pointers += query_head * output_head_stride
        output_pointers += query.to(tl.int64) * output_row_stride
        feats = tl.arange(0, BLOCK_SIZE_VALUE_FEAT)
        tl.store(
            output_pointers[:, None] + feats[None, :],
            saturate(y, dtype),
            mask=row_mask[:, None] & (feats < value_feat_dim)[None, :],
        )
