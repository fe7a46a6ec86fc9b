"""The kernels of YatAttention that are compiled ahead of time."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Literal

from nmn_export.kernels.ahead_of_time.variant import (
    MODES,
    WGMMA_ROWS,
    Mode,
    Variant,
    make_variant,
)
from nmn_export.kernels.attention.kernel import yat_attention_forward_kernel
from nmn_export.kernels.attention.options import Options
from nmn_export.kernels.attention.plan import attention_tile, split_tile, unaligned_tile
from nmn_export.kernels.tile_size import Tile
from nmn_export.kernels.weights import PLANES

Family = Literal["plain", "masked", "split", "general"]
"""plain:   softmax of positive scores, with one number added to all of them.
masked:  the same with any mask.
split:   all options and any mask, for few rows; the keys in parts.
general: the same for many rows and any number of features.
"""

_FEATURES: dict[Family, tuple[int, ...]] = {
    "plain": (32, 64, 128, 256),
    "masked": (64, 128, 256),
    "split": (64, 128, 256),
    "general": (64, 256),
}
"""Features of the tiles. Rows of fewer features are padded in registers."""

_TENSORS = ("query", "key", "value", "output")


_TENSORS = ("query", "key", "value", "output")

_UNUSED_OPTIONS = {
    name: value
    for name, value in asdict(Options.of(1.0, 1.0, False, 0.0, 0.0)).items()
    if name not in ("norm_scale", "floor")
}
"""Arguments that only a kernel with options takes."""


def attention_variants(capability: int) -> Iterator[Variant]:
    """Yield the kernels for `capability`.

    No input is prepared, so float32 has one mode, the most accurate.
    """
    for mode in MODES:
        if mode.precision != "bf16x3":
            for family, blocks in _FEATURES.items():
                for features in blocks:
                    yield _variant(
                        family, mode, features, _tile(family, mode, features, capability)
                    )


def _tile(family: Family, mode: Mode, features: int, capability: int) -> Tile:
    if family == "split":
        return split_tile(features, mode.precision, mode.itemsize)
    if family == "general":
        return unaligned_tile(features, mode.precision, mode.itemsize)
    plain = family == "plain"
    return attention_tile(features, mode.precision, mode.itemsize, capability, plain=plain)


def _variant(family: Family, mode: Mode, features: int, tile: Tile) -> Variant:
    has_options = family in ("split", "general")
    constants: dict[str, Any] = {
        "key_length_pointer": None,
        "HAS_MASK": family != "plain",
        "OPTIONS": has_options,
        "SPLIT": has_options,
        "PLANES": PLANES[mode.precision],
        "PRECISION": "ieee",
        "BLOCK_SIZE_M": tile.m,
        "BLOCK_SIZE_N": tile.n,
        "BLOCK_SIZE_K": min(tile.k, features),
        "BLOCK_SIZE_FEAT": features,
        "BLOCK_SIZE_VALUE_FEAT": features,
    }
    if has_options:  # norms are computed in the kernel
        unused: dict[str, Any] = {"key_norm_pointer": None} | dict.fromkeys(_strides("norm"), 0)
    else:
        unused = dict.fromkeys(("partial_pointer", "partial_sum_pointer", "arrival_pointer"))
        unused |= _UNUSED_OPTIONS | {"norm_row_stride": 1}
    if family == "plain":
        unused |= dict.fromkeys(("mask_key_stride", *_strides("mask")), 0)
    constants |= unused
    aligned = ("feat_dim", "value_feat_dim", *(s for tensor in _TENSORS for s in _strides(tensor)))
    return make_variant(
        f"yat_attention_{mode.name}_{family}_{features}",
        "YatAttention",
        yat_attention_forward_kernel,
        {f"{tensor}_pointer": mode.dtype for tensor in (*_TENSORS, "mask")}
        | {"arrival_pointer": "i32"},
        () if family == "general" else aligned,
        constants,
        tile.options,
        "tiles × parts",
        wants_wgmma=tile.m >= WGMMA_ROWS,
    )


def _strides(tensor: str) -> tuple[str, ...]:
    """Return the names of the strides of a tensor along its batch, heads and rows."""
    return tuple(f"{tensor}_{axis}_stride" for axis in ("batch", "head", "row"))
