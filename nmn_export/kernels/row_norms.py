"""Squared norms of rows, for kernels that read norms instead of computing them."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from nmn_export.kernels.yat import truncate_to_tf32

BLOCK_SIZE_ROW = 16
BLOCK_SIZE_FEAT = 128


@triton.jit
def row_norm_kernel(
    input_pointer,
    norm_pointer,
    row_dim,
    feat_dim,
    input_row_stride,
    TRUNCATE: tl.constexpr,
    BLOCK_SIZE_ROW: tl.constexpr,
    BLOCK_SIZE_FEAT: tl.constexpr,
):
    """Write the squared norm of every row, summed in float32.

    Args:
        input_pointer: Pointer to the rows. Must be of shape [row_dim, feat_dim], the last axis of
            stride 1.
        norm_pointer: Pointer to the float32 result. Must be of shape [row_dim].
        row_dim: Number of rows.
        feat_dim: Length of a row.
        input_row_stride: Elements from one row to the next.
        TRUNCATE: Whether to square the values that a TF32 product reads.
        BLOCK_SIZE_ROW: Rows per program.
        BLOCK_SIZE_FEAT: Elements of a row per step.
    """
    first = tl.program_id(0).to(tl.int64) * BLOCK_SIZE_ROW
    row_offset = tl.arange(0, BLOCK_SIZE_ROW)
    feat_offset = tl.arange(0, BLOCK_SIZE_FEAT)
    row_mask = row_offset < row_dim - first
    pointers = input_pointer + first * input_row_stride
    pointers = pointers + row_offset[:, None] * input_row_stride + feat_offset[None, :]
    square = tl.zeros([BLOCK_SIZE_ROW, BLOCK_SIZE_FEAT], tl.float32)
    for block in range(tl.cdiv(feat_dim, BLOCK_SIZE_FEAT)):
        start = block * BLOCK_SIZE_FEAT
        mask = row_mask[:, None] & (feat_offset < feat_dim - start)[None, :]
        x = tl.load(pointers + start, mask=mask, other=0.0).to(tl.float32)
        if TRUNCATE:
            x = truncate_to_tf32(x)
        square += x * x
    tl.store(norm_pointer + first + row_offset, tl.sum(square, axis=1), mask=row_mask)


def row_norms(rows: Tensor, norm: Tensor | None = None, *, truncate: bool = False) -> Tensor:
    """Return the squared norms of `rows` ([rows, features], last stride 1) as float32 [rows].

    They are written to `norm` if it is given. With `truncate`, they are those of the values that a
    TF32 product sees.
    """
    if norm is None:
        norm = torch.empty(rows.shape[0], device=rows.device, dtype=torch.float32)
    if not len(norm):
        return norm
    with torch.cuda.device_of(rows):  # type: ignore[no-untyped-call]
        row_norm_kernel[(triton.cdiv(rows.shape[0], BLOCK_SIZE_ROW),)](
            rows,
            norm,
            rows.shape[0],
            rows.shape[1],
            rows.stride(0),
            TRUNCATE=truncate,
            BLOCK_SIZE_ROW=BLOCK_SIZE_ROW,
            BLOCK_SIZE_FEAT=BLOCK_SIZE_FEAT,
            num_warps=4,
        )
    return norm
