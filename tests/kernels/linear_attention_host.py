"""A host of the compiled kernels of causal linear attention."""

import math

import torch
from torch import Tensor

from tests.kernels import host


def linear_attention(
    qf: Tensor, kf: Tensor, v: Tensor, epsilon: float, signed: bool, segment_chunks: int
) -> Tensor:
    """Compute causal linear attention of [..., L, features], whose last axes are aligned."""
    name = f"linear_attention_{{}}_{host.NAMES[v.dtype]}"
    constants = host.by_name()[name.format("sum")].constants
    heads, (length, feat_dim), value_dim = v[..., 0, 0].numel(), qf.shape[-2:], v.shape[-1]
    chunks = -(-length // constants["BLOCK_SIZE_M"])
    segments = -(-chunks // segment_chunks)

    def nan(*shape: int) -> Tensor:
        return qf.new_full(shape, math.nan, dtype=torch.float32)

    sums, k_sums = nan(heads, chunks, feat_dim, value_dim), nan(heads, chunks, feat_dim)
    totals, k_totals = nan(heads, segments, feat_dim, value_dim), nan(heads, segments, feat_dim)
    sizes = {
        "length": length,
        "feat_dim": feat_dim,
        "value_dim": value_dim,
        "chunks": chunks,
        "segment_chunks": segment_chunks,
    }
    tiles = host.blocks(feat_dim, name.format("sum"), "BLOCK_SIZE_K")
    host.launch(
        name.format("sum"),
        (heads * tiles * host.blocks(value_dim, name.format("sum"), "BLOCK_SIZE_N"), segments),
        k_pointer=kf,
        value_pointer=v,
        sum_pointer=sums,
        k_sum_pointer=k_sums,
        segment_sum_pointer=totals,
        segment_k_sum_pointer=k_totals,
        **sizes,
    )
    output = torch.full_like(v, math.nan)
    host.launch(
        name.format("output"),
        (heads * host.blocks(value_dim, name.format("output"), "BLOCK_SIZE_N"), chunks),
        q_pointer=qf,
        k_pointer=kf,
        value_pointer=v,
        sum_pointer=sums,
        k_sum_pointer=k_sums,
        segment_sum_pointer=totals.cumsum(1) - totals,
        segment_k_sum_pointer=k_totals.cumsum(1) - k_totals,
        output_pointer=output,
        **sizes,
        epsilon=epsilon,
        signed_guard=int(signed),
    )
    return output
