"""Several programs per tile of rows, each for a part of the keys, and the merge of the parts."""

import triton
import triton.language as tl

from nmn_export.kernels.attention.softmax import add_state, nothing_seen


@triton.jit
def part_pointers(
    partial_pointer, partial_sum_pointer, slot,
    BLOCK_SIZE_M: tl.constexpr, BLOCK_SIZE_VALUE_FEAT: tl.constexpr,
):  # fmt: skip
    """Return where the state of a part is in scratch memory: largest, total and acc.

    `slot` is the index of the part among those of all tiles, int64. See the table in
    `nmn_export.kernels` for the other arguments.
    """
    rows = tl.arange(0, BLOCK_SIZE_M)
    sums = partial_sum_pointer + slot * 2 * BLOCK_SIZE_M + rows
    values = partial_pointer + slot * BLOCK_SIZE_M * BLOCK_SIZE_VALUE_FEAT
    values += rows[:, None] * BLOCK_SIZE_VALUE_FEAT
    return sums, sums + BLOCK_SIZE_M, values + tl.arange(0, BLOCK_SIZE_VALUE_FEAT)[None, :]


@triton.jit
def merge_parts(
    largest, total, acc, partial_pointer, partial_sum_pointer, arrival_pointer, row_mask
):
    """Write the state of a part. Return whether it is the last one of its tile, and all as one.

    The program that comes last adds the parts in a fixed order, so the bits of results repeat. For
    the other programs the returned state has no meaning.

    Args:
        largest: Of the part.
        total: Of the part.
        acc: Of the part.
        partial_pointer: See the table in `nmn_export.kernels`.
        partial_sum_pointer: See the table.
        arrival_pointer: See the table.
        row_mask: Which rows there are. Must be of shape [BLOCK_SIZE_M].
    """
    tile, part, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    first = (tile * parts).to(tl.int64)
    mask = row_mask[:, None]
    is_last = parts == 1
    if parts > 1:
        largest_pointer, total_pointer, acc_pointer = part_pointers(
            partial_pointer, partial_sum_pointer, first + part, acc.shape[0], acc.shape[1]
        )
        tl.store(largest_pointer, largest, mask=row_mask)
        tl.store(total_pointer, total, mask=row_mask)
        tl.store(acc_pointer, acc, mask=mask)
        tl.debug_barrier()  # all threads store before one of them counts
        is_last = tl.atomic_add(arrival_pointer + tile, 1, sem="acq_rel") == parts - 1
        if is_last:
            largest, total, acc = nothing_seen(acc.shape[0], acc.shape[1])
            for other in range(parts):
                largest_pointer, total_pointer, acc_pointer = part_pointers(
                    partial_pointer, partial_sum_pointer, first + other, acc.shape[0], acc.shape[1]
                )
                largest, total, acc = add_state(
                    largest, total, acc,
                    tl.load(largest_pointer, mask=row_mask, other=largest, cache_modifier=".cg"),
                    tl.load(total_pointer, mask=row_mask, other=0.0, cache_modifier=".cg"),
                    tl.load(acc_pointer, mask=mask, other=0.0, cache_modifier=".cg"),
                )  # fmt: skip
            tl.store(arrival_pointer + tile, 0)
    return is_last, largest, total, acc
