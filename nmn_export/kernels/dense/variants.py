"""The kernels of YatDense that are compiled ahead of time."""

from collections.abc import Iterator
from itertools import product

from nmn_export.kernels.ahead_of_time.variant import (
    MODES,
    WGMMA_ROWS,
    Mode,
    Variant,
    make_variant,
    product_constants,
)
from nmn_export.kernels.dense.kernel import (
    yat_dense_forward_kernel,
    yat_dense_split_forward_kernel,
)
from nmn_export.kernels.dense.launch import GROUP_SIZE_M
from nmn_export.kernels.tile_size import FEW_ROWS, Tile, large_tile, small_tile

_PERSISTENT = "min(tiles, 2 per multiprocessor)"

_DIVISIBLE = ("in_feat_dim", "out_feat_dim", "input_batch_stride", "output_batch_stride")


def dense_variants(capability: int) -> Iterator[Variant]:
    """Yield the kernels for `capability`."""
    for mode in MODES:
        yield from _variants_of(mode, capability)


def _variants_of(mode: Mode, capability: int) -> Iterator[Variant]:
    tile = large_tile(mode.precision, mode.itemsize, capability)
    for schedule in ("grouped", "row_stationary"):
        name = f"yat_dense_{mode.name}_{schedule}"
        yield _persistent(name, mode, tile, schedule, descriptor=capability >= 90, even=True)
    # Rows of any number of features are copied element by element, for which a large tile spills.
    tile = small_tile(WGMMA_ROWS, mode.precision, mode.itemsize, capability)
    for spherical, negative in product((False, True), repeat=2):
        suffix = "_spherical" * spherical + "_negative" * negative
        yield _persistent(
            f"yat_dense_{mode.name}_general{suffix}",
            mode,
            tile,
            "grouped",
            descriptor=False,
            even=False,
            spherical=spherical,
            negative=negative,
        )
    for rows in (16, FEW_ROWS):
        yield _split(mode, small_tile(rows, mode.precision, mode.itemsize, capability))


def _persistent(
    name: str,
    mode: Mode,
    tile: Tile,
    schedule: str,
    *,
    descriptor: bool,
    even: bool,
    spherical: bool = False,
    negative: bool = False,
) -> Variant:
    stationary = schedule == "row_stationary"
    constants = product_constants(mode, tile) | {
        "SPHERICAL": spherical,
        "NEGATIVE": negative,
        "DESCRIPTOR": descriptor,
        "EVEN": even,
        "ROW_STATIONARY": stationary,
        "GROUP_SIZE_M": GROUP_SIZE_M,
    }
    if not spherical:
        constants["column_scale_pointer"] = None
    if stationary:
        constants["norm_pointer"] = None
    element = {"output_pointer": mode.dtype}
    sources = {"input_source": mode.dtype, "weight_source": mode.weight_dtype}
    if descriptor:
        rows = {"input_source": tile.m, "weight_source": tile.n}
        element |= {k: f"tensordesc<{v}[{rows[k]},{tile.k}]>" for k, v in sources.items()}
    else:
        element |= sources
    divisible = _DIVISIBLE if even else ()
    return make_variant(
        name,
        "YatDense",
        yat_dense_forward_kernel,
        element,
        (*divisible, "weight_out_feat_stride"),
        constants,
        tile.options,
        _PERSISTENT,
        wants_wgmma=True,
    )


def _split(mode: Mode, tile: Tile) -> Variant:
    return make_variant(
        f"yat_dense_{mode.name}_split_{tile.m}x{tile.n}",
        "YatDense",
        yat_dense_split_forward_kernel,
        {
            "input_pointer": mode.dtype,
            "weight_pointer": mode.weight_dtype,
            "output_pointer": mode.dtype,
            "arrival_pointer": "i32",
        },
        (*_DIVISIBLE, "weight_out_feat_stride"),
        product_constants(mode, tile) | {"SPHERICAL": False, "column_scale_pointer": None},
        tile.options,
        "tiles × parts",
        wants_wgmma=tile.m >= WGMMA_ROWS,
    )
