"""Sizes of YatAttention, the choice of tile and parts for them, and the scratch memory."""

import math
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from nmn_export.kernels.device import Device
from nmn_export.kernels.tile_size import PROGRAMS_PER_PROCESSOR, Tile
from nmn_export.kernels.weights import Float32Precision

MOST_FEATURES = 256
"""Maximum number of features of queries and keys, and of values: a row of each is in one tile."""

FEWEST_FEATURES = 16
"""Features of the smallest tile: the least that a product of tiles sums over."""

FILLING = 4
"""Part of the multiprocessors (one of so many) whose use is better than splitting the keys."""

MOST_KEY_PARTS = 64
"""Maximum number of parts of the keys. One program reads the results of all parts of a tile."""

BLOCKS_PER_PART = 2
"""Minimum number of blocks of keys of a part."""

_FLOAT32_K = {"bf16x6": 32, "bf16x3": 32, "tf32": 32, "ieee": 16}
"""Features per step by the precision of float32 products."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of queries [B, H, Lq, D], keys [B, G, Lk, D] and values [B, G, Lk, E].

    Attributes:
        batch: B.
        key_heads: G.
        group: H / G, the query heads that share a key head.
        queries: Lq.
        keys: Lk.
        feat_dim: D.
        value_feat_dim: E.
    """

    batch: int
    key_heads: int
    group: int
    queries: int
    keys: int
    feat_dim: int
    value_feat_dim: int

    @classmethod
    def of(cls, q: Tensor, v: Tensor) -> "Sizes":
        """Return the sizes of checked inputs."""
        batch, heads, queries, feat_dim = q.shape
        key_heads, keys, value_feat_dim = v.shape[1:]
        group = heads // key_heads
        return cls(batch, key_heads, group, queries, keys, feat_dim, value_feat_dim)

    @property
    def rows(self) -> int:
        """Rows of tiles that share keys."""
        return self.queries * self.group

    def tiles(self, tile: Tile) -> int:
        """Return the number of tiles."""
        return self.batch * self.key_heads * -(-self.rows // tile.m)


@dataclass(frozen=True)
class AttentionPlan:
    """How attention is computed.

    Attributes:
        tile: m rows, n keys; k features of queries and keys per step, or all if it is at least as
            many.
        parts: Parts of the keys of a tile.
        split: Whether the kernel is that for parts. It computes the norms of keys itself, so it
            also serves one part of few keys.
    """

    tile: Tile
    parts: int = 1
    split: bool = False

    def scratch(self, sizes: Sizes) -> dict[str, tuple[int, ...]]:
        """Return the shape of every float32 tensor of scratch memory, by name.

        All grow with the number of queries or of keys, and none with their product.
        """
        norms = 0 if self.split else sizes.batch * sizes.key_heads * sizes.keys
        slots = sizes.tiles(self.tile) * self.parts if self.parts > 1 else 0
        features = block_features(sizes.value_feat_dim)
        return {
            "key_norms": (norms,),
            "partial": (slots, self.tile.m, features),
            "partial_sums": (slots, 2, self.tile.m),
        }

    def workspace_bytes(self, sizes: Sizes) -> int:
        """Return the bytes of scratch memory, without the counters of the parts."""
        return 4 * sum(math.prod(shape) for shape in self.scratch(sizes).values())


def block_features(feat_dim: int) -> int:
    """Return the features of a tile for rows of `feat_dim` features."""
    return max(FEWEST_FEATURES, int(triton.next_power_of_2(feat_dim)))


def attention_tile(
    features: int, precision: Float32Precision, itemsize: int, capability: int, *, plain: bool
) -> Tile:
    """Return the tile for many rows.

    Args:
        features: The features of a tile: of keys or of values, whichever has more.
        precision: How float32 products are computed.
        itemsize: Bytes of an element.
        capability: Compute capability of the GPU, times ten.
        plain: Whether there is neither a mask nor another option. They need registers.
    """
    if itemsize == 4:
        # wgmma reads its right operand from shared memory, which leaves registers for more rows.
        has_room = capability == 90 and features <= (128 if plain else 64)
        return _float32_tile(64 if has_room else 32, features, precision)
    if features > 128:
        return Tile(64, 32, features, warps=8, stages=2)
    if features > 64:
        m, n = (128, 64) if plain else (64, 32)
        return Tile(m, n, features, warps=8, stages=2)
    if not plain:
        return Tile(64, 64, features, warps=4, stages=3)
    # With wgmma, four warps leave room for a second program on an SM. Without it they would spill.
    return Tile(128, 64, features, warps=4 if capability == 90 else 8, stages=3)


def unaligned_tile(features: int, precision: Float32Precision, itemsize: int) -> Tile:
    """Return the tile for rows that are copied element by element, which needs registers."""
    if itemsize == 4:
        return _float32_tile(32, features, precision)
    return Tile(64 if features <= 64 else 32, 32, features, warps=8, stages=2)


def split_tile(features: int, precision: Float32Precision, itemsize: int) -> Tile:
    """Return the tile for rows that are too few to fill the GPU unless the keys are split."""
    warps = 8 if features > 128 else 4
    if itemsize == 4:
        return Tile(16, 32, _FLOAT32_K[precision], warps, stages=2)
    n, stages = (64, 3) if features <= 64 else (64, 2) if features <= 128 else (32, 2)
    return Tile(16, n, features, warps, stages)


def _float32_tile(m: int, features: int, precision: Float32Precision) -> Tile:
    """Return a tile whose features are taken in steps: their planes do not fit the registers."""
    return Tile(m, 16 if features > 128 else 32, _FLOAT32_K[precision], warps=8, stages=2)


def plan_attention(
    sizes: Sizes, dtype: torch.dtype, precision: Float32Precision, plain: bool, device: Device
) -> AttentionPlan:
    """Choose a plan: parts of the keys for few rows, and for tiles that are too few for the GPU.

    The tiles for parts have fewer rows, so that keys are read more often.
    """
    features = block_features(max(sizes.feat_dim, sizes.value_feat_dim))
    large = attention_tile(features, precision, dtype.itemsize, device.capability, plain=plain)
    tile = split_tile(features, precision, dtype.itemsize)
    if sizes.rows > tile.m and FILLING * sizes.tiles(large) >= device.processors:
        return AttentionPlan(large)
    wanted = triton.cdiv(PROGRAMS_PER_PROCESSOR * device.processors, sizes.tiles(tile))
    most = triton.cdiv(sizes.keys, BLOCKS_PER_PART * tile.n)
    return AttentionPlan(tile, max(1, min(wanted, most, MOST_KEY_PARTS)), split=True)
