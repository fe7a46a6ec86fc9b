"""Scores of YatAttention: the ⵟ-products of a tile of queries with a block of keys, as exponents.

The exponent of a score is log2 of the weight of its value, before weights are divided by their sum.
"""

import triton
import triton.language as tl

from nmn_export.kernels.attention.options import LOWEST_EXPONENT
from nmn_export.kernels.load_store import load_tile, square_sum
from nmn_export.kernels.yat import INTERPRETED, split, split_product, truncate_to_tf32, yat

LOWEST: tl.constexpr = tl.constexpr(LOWEST_EXPONENT)

HIDDEN: tl.constexpr = tl.constexpr(float("-inf"))
"""Exponent of the score of a key that a query does not attend to."""


@triton.jit
def product_of_inputs(x, y, dot, PLANES: tl.constexpr, PRECISION: tl.constexpr):
    """Return `dot` + x · y, where neither operand has been prepared."""
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
def key_product(
    q, query_pointers, key_pointer, start, key_end, feat_dim, key_row_stride,
    PLANES: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_SIZE_N: tl.constexpr, BLOCK_SIZE_K: tl.constexpr, BLOCK_SIZE_FEAT: tl.constexpr,
):  # fmt: skip
    """Return the dot products of queries with a block of keys, float32.

    If BLOCK_SIZE_K is BLOCK_SIZE_FEAT, the queries are `q`. Otherwise they are loaded again in
    steps, because the planes of all their features do not fit the registers.
    """
    dot = tl.zeros([query_pointers.shape[0], BLOCK_SIZE_N], tl.float32)
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
    return dot


@triton.jit
def key_norms(
    key_norm_pointer, norm_row_stride, key_pointer, start, key_end, feat_dim, key_row_stride,
    PRECISION: tl.constexpr, BLOCK_SIZE_N: tl.constexpr, BLOCK_SIZE_FEAT: tl.constexpr,
):  # fmt: skip
    """Return the squared norms of a block of keys, float32 [BLOCK_SIZE_N].

    Without a `key_norm_pointer` they are computed from the keys, which are loaded again with
    another cache modifier: an operand of a product is not squared, see `yat_dense_forward_kernel`.
    """
    if key_norm_pointer is None:
        k = load_tile(
            key_pointer, start, 0, key_end, feat_dim, key_row_stride,
            BLOCK_SIZE_N, BLOCK_SIZE_FEAT, False, False, ".ca",
        )  # fmt: skip
        return square_sum(k, PRECISION)
    else:
        column = tl.minimum(start + tl.arange(0, BLOCK_SIZE_N), key_end - 1)
        return tl.load(key_norm_pointer + column * norm_row_stride)


@triton.jit
def scale_and_norm(norm, spherical, epsilon, OPTIONS: tl.constexpr):
    """Return what to multiply vectors of this squared norm by, and the squared norm after that."""
    scale = tl.zeros_like(norm) + 1.0
    if OPTIONS:
        scale = tl.where(spherical != 0, tl.rsqrt(norm + epsilon), scale)
        norm = tl.where(spherical != 0, 1.0, norm)
    return scale, norm


@triton.jit
def exponents(
    dot, row_scale, row_term, key_norm, mask_pointers, column, norm_scale, floor, mask_scale,
    spherical, epsilon, sign, power, HAS_MASK: tl.constexpr, OPTIONS: tl.constexpr,
):  # fmt: skip
    """Return the exponents of scores, and which of the scores are negative.

    Args:
        dot: ⟨q, k⟩. Must be of shape [BLOCK_SIZE_M, BLOCK_SIZE_N], as are the results.
        row_scale: What to multiply queries by. Must be of shape [BLOCK_SIZE_M].
        row_term: ‖q‖² / |α| after that. Must be of shape [BLOCK_SIZE_M].
        key_norm: ‖k‖². Must be of shape [BLOCK_SIZE_N].
        mask_pointers: To the first number of each row of the mask. Must be of shape [BLOCK_SIZE_M].
        column: Offsets of the numbers of the mask. Must be of shape [BLOCK_SIZE_N].
        norm_scale: See the table in `nmn_export.kernels`, as for the arguments that follow.
        floor: See the table.
        mask_scale: See the table.
        spherical: See the table.
        epsilon: See the table.
        sign: See the table.
        power: See the table.
        HAS_MASK: See the table.
        OPTIONS: See the table.
    """
    column_scale, key_norm = scale_and_norm(key_norm, spherical, epsilon, OPTIONS)
    if OPTIONS:
        dot = dot * row_scale[:, None] * column_scale[None, :]
    column_term = key_norm * norm_scale + floor
    score = yat(
        dot, row_term[:, None], column_term[None, :], 0.0, -2.0 * norm_scale, floor,
        False, tl.float32,
    )  # fmt: skip
    if OPTIONS:
        score = score * sign
    if HAS_MASK:
        mask = tl.load(mask_pointers[:, None] + column[None, :]).to(tl.float32)
        score = score + mask * mask_scale
    exponent = score
    if OPTIONS:
        exponent = tl.where(power > 0, power * tl.log2(tl.abs(score)), score)
    if HAS_MASK:
        # A large negative number may have become −∞ by the scale, but it hides no key.
        exponent = tl.maximum(exponent, LOWEST, propagate_nan=tl.PropagateNan.ALL)
        exponent = tl.where(mask == HIDDEN, HIDDEN, exponent)
    return exponent, score < 0
