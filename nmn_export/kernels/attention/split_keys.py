"""Several programs per tile of queries, each for a part of the keys, and the merge of the parts.

A part of a tile is `largest` [BLOCK_SIZE_M], the largest exponent of each row; `total`
[BLOCK_SIZE_M], the sum of its weights, each 2^(exponent − largest); and `acc`
[BLOCK_SIZE_M, BLOCK_SIZE_VALUE_FEAT], the sum of its weighted values. All are float32.
"""

import triton
import triton.language as tl


@triton.jit
def store_part(partial_pointer, partial_sum_pointer, slot, largest, total, acc, row_mask):
    """Write a part to scratch memory.

    Args:
        partial_pointer: See the table in `nmn_export.kernels`.
        partial_sum_pointer: See the table.
        slot: Index of the part among those of all tiles, int64.
        largest: Of the part.
        total: Of the part.
        acc: Of the part.
        row_mask: Which rows to write. Must be of shape [BLOCK_SIZE_M].
    """
    rows = tl.arange(0, acc.shape[0])
    feats = tl.arange(0, acc.shape[1])
    sums = partial_sum_pointer + slot * 2 * acc.shape[0] + rows
    tl.store(sums, largest, mask=row_mask)
    tl.store(sums + acc.shape[0], total, mask=row_mask)
    pointers = partial_pointer + slot * acc.shape[0] * acc.shape[1]
    pointers = pointers + rows[:, None] * acc.shape[1] + feats[None, :]
    tl.store(pointers, acc, mask=row_mask[:, None])


@triton.jit
def merge_parts(
    partial_pointer, partial_sum_pointer, first_slot, parts, largest, total, acc, row_mask
):
    """Return the parts of a tile as one. They are added in order, so the bits repeat.

    `first_slot` is that of the first of `parts` parts. `largest`, `total` and `acc` are those of no
    keys. The other arguments are those of `store_part`.
    """
    rows = tl.arange(0, acc.shape[0])
    feats = tl.arange(0, acc.shape[1])
    for part in range(parts):
        slot = first_slot + part
        sums = partial_sum_pointer + slot * 2 * acc.shape[0] + rows
        largest_of_part = tl.load(sums, mask=row_mask, other=largest, cache_modifier=".cg")
        total_of_part = tl.load(sums + acc.shape[0], mask=row_mask, other=0.0, cache_modifier=".cg")
        pointers = partial_pointer + slot * acc.shape[0] * acc.shape[1]
        pointers = pointers + rows[:, None] * acc.shape[1] + feats[None, :]
        acc_of_part = tl.load(pointers, mask=row_mask[:, None], other=0.0, cache_modifier=".cg")
        both = tl.maximum(largest, largest_of_part)
        factor, factor_of_part = tl.exp2(largest - both), tl.exp2(largest_of_part - both)
        total = total * factor + total_of_part * factor_of_part
        acc = acc * factor[:, None] + acc_of_part * factor_of_part[:, None]
        largest = both
    return largest, total, acc
