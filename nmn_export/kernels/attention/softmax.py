"""Online softmax: the weights and weighted values of the keys seen so far, and their end.

The state is, in float32, `largest` [BLOCK_SIZE_M], the largest exponent of each row; `total`
[BLOCK_SIZE_M], the sum of its weights, each 2^(exponent − largest); and `acc`
[BLOCK_SIZE_M, BLOCK_SIZE_VALUE_FEAT], the sum of its weighted values.
"""

import triton
import triton.language as tl

from nmn_export.kernels.attention.scores import HIDDEN, LOWEST, product_of_inputs
from nmn_export.kernels.yat import cast, saturate


@triton.jit
def nothing_seen(BLOCK_SIZE_M: tl.constexpr, BLOCK_SIZE_VALUE_FEAT: tl.constexpr):
    """Return the state before the first key."""
    largest = tl.full([BLOCK_SIZE_M], LOWEST, tl.float32)
    total = tl.zeros([BLOCK_SIZE_M], tl.float32)
    return largest, total, tl.zeros([BLOCK_SIZE_M, BLOCK_SIZE_VALUE_FEAT], tl.float32)


@triton.jit
def add_block(
    largest, total, acc, exponent, negative, v, negative_factor,
    OPTIONS: tl.constexpr, PLANES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return the state with a block of keys added.

    Args:
        largest: Of the state.
        total: Of the state.
        acc: Of the state.
        exponent: Exponents of scores. Must be of shape [BLOCK_SIZE_M, BLOCK_SIZE_N].
        negative: Which scores are negative. Must be of the shape of `exponent`.
        v: Values. Must be of shape [BLOCK_SIZE_N, BLOCK_SIZE_VALUE_FEAT].
        negative_factor: See the table in `nmn_export.kernels`, as for the arguments that follow.
        OPTIONS: See the table.
        PLANES: See the table.
        PRECISION: See the table.
    """
    new_largest = tl.maximum(largest, tl.max(exponent, 1))
    weight = tl.exp2(exponent - new_largest[:, None])
    if OPTIONS:
        weight = tl.where(negative & (exponent > HIDDEN), weight * negative_factor, weight)
    correction = tl.exp2(largest - new_largest)
    total = total * correction + tl.sum(weight, 1)
    acc = acc * correction[:, None]
    acc = product_of_inputs(cast(weight, v.dtype), v, acc, PLANES, PRECISION)
    return new_largest, total, acc


@triton.jit
def add_state(largest, total, acc, other_largest, other_total, other_acc):
    """Return two states as one."""
    both = tl.maximum(largest, other_largest)
    factor, other_factor = tl.exp2(largest - both), tl.exp2(other_largest - both)
    total = total * factor + other_total * other_factor
    acc = acc * factor[:, None] + other_acc * other_factor[:, None]
    return both, total, acc


@triton.jit
def store_output(
    largest, total, acc, output_pointers, row_mask, value_feat_dim,
):  # fmt: skip
    """Divide by the sum of weights, and store. A row that saw nothing is zero.

    `output_pointers` point to the first feature of each row; `row_mask` says which rows to store.
    Both must be of shape [BLOCK_SIZE_M].
    """
    saw_nothing = (largest == LOWEST) & (total == 0)
    y = acc * (1.0 / tl.where(saw_nothing, 1.0, total))[:, None]
    feats = tl.arange(0, acc.shape[1])
    mask = row_mask[:, None] & (feats < value_feat_dim)[None, :]
    dtype: tl.constexpr = output_pointers.dtype.element_ty
    tl.store(output_pointers[:, None] + feats[None, :], saturate(y, dtype), mask=mask)
