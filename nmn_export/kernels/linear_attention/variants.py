"""The kernels of causal linear attention that are compiled ahead of time."""

from collections.abc import Iterator
from typing import Any

from nmn_export.kernels.ahead_of_time.variant import Variant, make_variant
from nmn_export.kernels.linear_attention.kernel import (
    causal_linear_attention_kernel,
    linear_attention_sum_kernel,
)
from nmn_export.kernels.linear_attention.launch import OUTPUT_TILES, SUM_TILE
from nmn_export.kernels.tile_size import Tile

_TENSORS = ("q_pointer", "k_pointer", "value_pointer", "output_pointer")
"""Arguments of the dtype of the features; all sums are float32."""


_PRECISIONS = {"fp16": "tf32", "bf16": "tf32", "fp32": "tf32x3"}


def linear_attention_variants(_capability: int) -> Iterator[Variant]:
    """Yield the kernels, the same for every GPU."""
    for dtype, precision in _PRECISIONS.items():
        sums = "heads · tiles × segments"
        yield _variant("sum", linear_attention_sum_kernel, dtype, SUM_TILE, sums)
        outputs, tile = "heads · tiles of values × chunks", OUTPUT_TILES[precision]
        yield _variant("output", causal_linear_attention_kernel, dtype, tile, outputs)


def _variant(name: str, kernel: Any, dtype: str, tile: Tile, grid: str) -> Variant:
    return make_variant(
        f"linear_attention_{name}_{dtype}",
        "CausalLinearAttention",
        kernel,
        {tensor: dtype for tensor in _TENSORS if tensor in kernel.arg_names},
        ("feat_dim", "value_dim"),
        {
            "PRECISION": _PRECISIONS[dtype],
            "BLOCK_SIZE_M": tile.m,
            "BLOCK_SIZE_N": tile.n,
            "BLOCK_SIZE_K": tile.k,
        },
        tile.options,
        grid,
        wants_wgmma=False,
    )
