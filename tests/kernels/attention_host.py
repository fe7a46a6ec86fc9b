"""A host of YatAttention's compiled kernels. The plugin does the same in C++."""

import math
from dataclasses import asdict

import torch
from torch import Tensor

from nmn_export.kernels.attention.options import Options
from nmn_export.kernels.attention.plan import Sizes
from nmn_export.kernels.tile_size import Tile
from tests.kernels.host import MODES, by_name, launch, row_norms


def attention(family: str, features: int, parts: int, *arguments: object) -> Tensor:
    """Compute YatAttention with the kernel of a family; the inputs are contiguous.

    Args:
        family: Of the kernel.
        features: Of its tile.
        parts: Parts of the keys.
        arguments: Those of the torch op, but one number for all scores instead of no mask.
    """
    q, k, v, mask, epsilon, scale, is_causal, spherical, power, guard = arguments
    name = f"yat_attention_{MODES[q.dtype]}_{family}_{features}"
    variant, sizes = by_name()[name], Sizes.of(q, v)
    m, block = (variant.constants[f"BLOCK_SIZE_{axis}"] for axis in ("M", "VALUE_FEAT"))
    tiles = sizes.tiles(Tile(m, 0, 0, 0, 0))
    norms = row_norms(k.flatten(0, 2)) if "key_norm_pointer" in variant.types else None
    output = q.new_full((*q.shape[:3], v.shape[3]), math.nan)
    given = {
        "query_pointer": q,
        "key_pointer": k,
        "value_pointer": v,
        "mask_pointer": mask,
        "key_norm_pointer": norms,
        "output_pointer": output,
        "partial_pointer": torch.full((tiles * parts, m, block), math.nan),
        "partial_sum_pointer": torch.full((tiles * parts, 2, m), math.nan),
        "arrival_pointer": torch.zeros(tiles, dtype=torch.int32),
        "key_head_dim": sizes.key_heads,
        "group_dim": sizes.group,
        "query_dim": sizes.queries,
        "key_dim": sizes.keys,
        "feat_dim": sizes.feat_dim,
        "value_feat_dim": sizes.value_feat_dim,
        "causal_offset": sizes.keys - sizes.queries if is_causal else sizes.keys,
        "norm_batch_stride": sizes.key_heads * sizes.keys,
        "norm_head_stride": sizes.keys,
        **asdict(Options.of(epsilon, scale, spherical, power, guard)),
    }
    mask_strides = [
        0 if size == 1 else s for size, s in zip(mask.shape, mask.stride(), strict=True)
    ]
    for tensor, strides in (
        ("query", q.stride()),
        ("key", k.stride()),
        ("value", v.stride()),
        ("output", output.stride()),
        ("mask", mask_strides),
    ):
        for axis, stride in zip(("batch", "head", "row", "key"), strides, strict=False):
            given[f"{tensor}_{axis}_stride"] = stride
    launch(name, (tiles, parts), **{n: given[n] for n in variant.types})
    return output
