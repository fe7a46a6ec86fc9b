"""Causal linear attention from PyTorch: input checks, number of segments, launch."""

from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.kernels.device import device_of
from nmn_export.kernels.linear_attention.kernel import (
    causal_linear_attention_kernel,
    linear_attention_sum_kernel,
)
from nmn_export.kernels.tile_size import Tile
from nmn_export.kernels.weights import ALIGNMENT, DTYPES, precision_for
from nmn_export.ops.linear_attention import CHUNK, sum_before

SUM_TILE = Tile(m=CHUNK, n=64, k=32, warps=8, stages=2)

OUTPUT_TILES = {
    "tf32": Tile(m=CHUNK, n=64, k=32, warps=4, stages=2),
    # Three products need registers for the parts of both operands.
    "tf32x3": Tile(m=CHUNK, n=32, k=16, warps=4, stages=2),
}
"""Tiles of the outputs by precision."""

PROGRAMS_PER_PROCESSOR = 2
"""Programs per SM that the sums are split into, if there are fewer heads and tiles."""


def product_precision(dtype: torch.dtype) -> str:
    """Return how products are computed: "tf32", or "tf32x3", which is as accurate as float32.

    Half precisions are exact in TF32, and so are their products. float32 uses TF32 only if
    `torch.set_float32_matmul_precision` is "medium".
    """
    half = dtype != torch.float32
    return "tf32" if half or precision_for(dtype) == "tf32" else "tf32x3"


def forward(
    q_features: Tensor,
    k_features: Tensor,
    v: Tensor,
    epsilon: float,
    signed: bool,
    segments: int | None = None,
) -> Tensor:
    """Compute `nmn::causal_linear_attention` on a GPU.

    Args:
        q_features: [..., L, M], float16, bfloat16 or float32.
        k_features: [..., L, M].
        v: [..., L, E].
        epsilon: Guard of the denominator.
        signed: Whether it has the sign of the denominator.
        segments: Parts of a sequence that are summed in parallel; `None` chooses.

    Returns:
        [..., L, E], contiguous.

    Raises:
        NmnExportError: The tensors have other dtypes, or shapes that do not fit.
    """
    _check(q_features, k_features, v)
    if not v.numel():
        return torch.empty_like(v, memory_format=torch.contiguous_format)
    qf, kf, values = map(_aligned, (q_features, k_features, v))
    output = torch.empty_like(values)
    feat_dim, value_dim = qf.shape[-1], values.shape[-1]
    heads, length = v.shape[:-2].numel(), v.shape[-2]
    chunks = triton.cdiv(length, CHUNK)
    tiles = triton.cdiv(feat_dim, SUM_TILE.k) * triton.cdiv(value_dim, SUM_TILE.n)
    segments = segments or _segments(heads * tiles, chunks, device_of(v).processors)
    segment_chunks = triton.cdiv(chunks, segments)
    segments = triton.cdiv(chunks, segment_chunks)

    def sums(parts: int) -> tuple[Tensor, Tensor]:
        new = qf.new_empty
        shape = (heads, parts, feat_dim)
        return new(*shape, value_dim, dtype=torch.float32), new(shape, dtype=torch.float32)

    shared: dict[str, Any] = {
        "k_pointer": kf,
        "value_pointer": values,
        "length": length,
        "feat_dim": feat_dim,
        "value_dim": value_dim,
        "chunks": chunks,
        "segment_chunks": segment_chunks,
        "PRECISION": product_precision(v.dtype),
    }
    shared["sum_pointer"], shared["k_sum_pointer"] = sums(chunks)
    totals = sums(segments)
    with torch.cuda.device_of(v):  # type: ignore[no-untyped-call]
        linear_attention_sum_kernel[(heads * tiles, segments)](
            segment_sum_pointer=totals[0],
            segment_k_sum_pointer=totals[1],
            **shared,
            **_blocks(SUM_TILE),
        )
        tile = OUTPUT_TILES[shared["PRECISION"]]
        before = totals if segments == 1 else tuple(sum_before(t, 1) for t in totals)
        causal_linear_attention_kernel[(heads * triton.cdiv(value_dim, tile.n), chunks)](
            q_pointer=qf,
            segment_sum_pointer=before[0],
            segment_k_sum_pointer=before[1],
            output_pointer=output,
            epsilon=epsilon,
            signed_guard=int(signed),
            **shared,
            **_blocks(tile),
        )
    return output[..., : v.shape[-1]].contiguous()


def _aligned(x: Tensor) -> Tensor:
    """Return a contiguous tensor whose last axis is a multiple of 16, padded with zeros."""
    return F.pad(x, (0, -x.shape[-1] % ALIGNMENT)).contiguous()


def _segments(programs: int, chunks: int, processors: int) -> int:
    """Return the number of segments that fills the GPU, with at least two chunks in each."""
    wanted = -(-PROGRAMS_PER_PROCESSOR * processors // programs)
    return max(1, min(wanted, chunks // 2))


def _blocks(tile: Tile) -> dict[str, int]:
    return {"BLOCK_SIZE_M": tile.m, "BLOCK_SIZE_N": tile.n, "BLOCK_SIZE_K": tile.k, **tile.options}


def _check(qf: Tensor, kf: Tensor, v: Tensor) -> None:
    if v.dtype not in DTYPES or qf.dtype != v.dtype or kf.dtype != v.dtype:
        raise NmnExportError(
            "Features and values are all float16, bfloat16 or float32",
            got=", ".join(str(t.dtype) for t in (qf, kf, v)),
            fix="Convert them.",
        )
    if qf.shape != kf.shape or qf.shape[:-1] != v.shape[:-1]:
        raise NmnExportError(
            "Causal linear attention takes features [..., L, M] of queries and keys, and values "
            "[..., L, E]",
            got=", ".join(str(tuple(t.shape)) for t in (qf, kf, v)),
            fix="Give tensors of such shapes.",
        )
