"""Sizes of YatAttention, the choice of tile and parts for them, and the scratch memory."""

import math
from dataclasses import dataclass, replace

import torch
import triton
from torch import Tensor

from nmn_export.kernels.device import Device
from nmn_export.kernels.tile_size import FEW_ROWS, PROGRAMS_PER_PROCESSOR, Tile
from nmn_export.kernels.weights import Float32Precision

MOST_FEATURES = 256
"""Maximum number of features of queries and keys, and of values: a row of each is in one tile."""

FEWEST_FEATURES = 16
"""Features of the smallest tile: the least that a product of tiles sums over."""

MOST_KEY_PARTS = 64
"""Maximum number of parts of the keys. One program reads the results of all parts of a tile."""

BLOCKS_PER_PART = 2
"""Minimum number of blocks of keys of a part."""


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
    def of(cls, q: Tensor, k: Tensor, v: Tensor) -> "Sizes":
        """Return the sizes of checked inputs."""
        group = q.shape[1] // max(1, k.shape[1])
        return cls(*k.shape[:2], group, q.shape[2], k.shape[2], q.shape[3], v.shape[3])

    @property
    def rows(self) -> int:
        """Rows of tiles that share keys."""
        return self.queries * self.group

    def tiles(self, tile: Tile) -> int:
        """Return the number of tiles."""
        return self.batch * self.key_heads * triton.cdiv(self.rows, tile.m)


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
        features: The larger number of features of a tile, of keys or of values.
        precision: How float32 products are computed.
        itemsize: Bytes of an element.
        capability: Compute capability of the GPU, times ten.
        plain: Whether there is neither a mask nor another option, all of which cost registers.
    """
    if itemsize == 4:
        # The parts of split operands fill the registers, so that all features at once do not fit.
        m = 64 if features <= 64 or (plain and features <= 128) else 32
        k = 16 if precision == "ieee" else 32
        return Tile(m, 32, k, warps=8, stages=2)
    if features > 128:
        return Tile(64, 32, features, warps=8, stages=2)
    if features > 64:
        return Tile(128 if plain else 64, 64, features, warps=8, stages=2)
    if not plain:
        return Tile(64, 64, features, warps=4, stages=3)
    # Four warps leave room for a second program on an SM. Without wgmma they would spill.
    return Tile(128, 64, features, warps=4 if capability == 90 else 8, stages=3)


def split_tile(rows: int, features: int, precision: Float32Precision, itemsize: int) -> Tile:
    """Return the tile for `rows` rows that are too few to fill the GPU without parts of the keys."""
    m = min(FEW_ROWS, max(16, int(triton.next_power_of_2(rows))))
    if itemsize == 4:
        m = min(m, 64 if features <= 64 else 32)
        return Tile(m, 32, 16 if precision == "ieee" else 32, warps=8, stages=2)
    n = 32 if features > 128 else 64
    return Tile(m, n, features, warps=4 if m <= 16 else 8, stages=2)


def plan_attention(
    sizes: Sizes,
    dtype: torch.dtype,
    precision: Float32Precision,
    plain: bool,
    device: Device,
) -> AttentionPlan:
    """Choose a plan: one program per tile if the tiles fill the GPU, else parts of the keys."""
    features = block_features(max(sizes.feat_dim, sizes.value_feat_dim))
    tile = attention_tile(features, precision, dtype.itemsize, device.capability, plain=plain)
    if sizes.tiles(tile) >= device.processors:
        return AttentionPlan(tile)
    tile = split_tile(sizes.rows, features, precision, dtype.itemsize)
    wanted = triton.cdiv(PROGRAMS_PER_PROCESSOR * device.processors, sizes.tiles(tile))
    most = triton.cdiv(sizes.keys, BLOCKS_PER_PART * tile.n)
    parts = max(1, min(wanted, most, MOST_KEY_PARTS))
    return AttentionPlan(tile, parts, split=True)
