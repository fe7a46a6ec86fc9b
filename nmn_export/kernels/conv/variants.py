"""The kernels of YatConv that are compiled ahead of time; `image_variants` also serves others."""

from collections.abc import Iterator
from itertools import product
from typing import Any

from nmn_export.kernels.ahead_of_time.variant import (
    MODES,
    TRITON_DTYPES,
    Mode,
    Variant,
    make_variant,
    product_constants,
)
from nmn_export.kernels.conv import channels_last
from nmn_export.kernels.conv.kernel import yat_conv_forward_kernel
from nmn_export.kernels.tile_size import Tile, large_tile, make_tile


def conv_variants(capability: int) -> Iterator[Variant]:
    """Yield the kernels for `capability`."""
    for dtype in TRITON_DTYPES:
        yield _pack_pixels(dtype)
    yield from image_variants("YatConv", "yat_conv", yat_conv_forward_kernel, capability)


def image_variants(op: str, name: str, kernel: Any, capability: int) -> Iterator[Variant]:
    """Yield variants of `kernel`, which has the arguments of YatConv's and more, for every mode."""
    for mode in MODES:
        for tile_name, tile, options in _tiles(mode, capability):
            yield _image_variant(
                op, f"{name}_{mode.name}_{tile_name}", kernel, mode, tile, **options
            )


def _pack_pixels(dtype: str) -> Variant:
    return make_variant(
        f"pack_pixels_{dtype}",
        "",
        channels_last.pack_pixels_kernel,
        {"input_pointer": dtype, "output_pointer": dtype},
        (),
        {
            "TRUNCATE": False,
            "BLOCK_SIZE_PIXEL": channels_last.BLOCK_SIZE_PIXEL,
            "BLOCK_SIZE_FEAT": channels_last.BLOCK_SIZE_FEAT,
        },
        {"num_warps": channels_last.WARPS, "num_stages": 3},
        f"images · (pixels of one / {channels_last.BLOCK_SIZE_PIXEL}) × groups",
        wants_wgmma=False,
    )


def _tiles(mode: Mode, capability: int) -> Iterator[tuple[str, Tile, dict[str, bool]]]:
    """Yield names, tiles and options: aligned images, and any volumes."""
    large = large_tile(mode.precision, mode.itemsize, capability)
    shapes = {(large.m, large.n, large.warps), (large.m, 64, large.warps), (64, 64, 4)}
    blocks_k = (64, 32) if mode.itemsize == 2 else (32, 16)
    for (m, n, warps), k in product(sorted(shapes), blocks_k):
        tile = make_tile(m, n, k, warps, mode.precision, mode.itemsize, capability)
        yield f"{m}x{n}x{k}", tile, {"general": False, "negative": False}
    tile = make_tile(64, 64, 16, 4, mode.precision, mode.itemsize, capability)
    for negative in (False, True):
        yield "general" + "_negative" * negative, tile, {"general": True, "negative": negative}


def _image_variant(
    op: str, name: str, kernel: Any, mode: Mode, tile: Tile, *, general: bool, negative: bool
) -> Variant:
    constants = product_constants(mode, tile) | {
        "EVEN": not general,
        "HAS_DEPTH": general,
        "NEGATIVE": negative,
    }
    if not general:
        constants["output_feat_stride"] = 1
        depths = [parameter for parameter in kernel.arg_names if "depth" in parameter]
        constants |= dict.fromkeys(depths, 1) | {"depth_pad": 0}
    aligned = ("in_feat_dim", "out_feat_dim", "input_pixel_stride", "output_batch_stride")
    return make_variant(
        name,
        op,
        kernel,
        {
            "input_pointer": mode.dtype,
            "weight_pointer": mode.weight_dtype,
            "output_pointer": mode.dtype,
        },
        (
            "weight_plane_stride",
            "weight_out_feat_stride",
            *(() if general else (*aligned, "output_pixel_stride")),
        ),
        constants,
        tile.options,
        "tiles × groups",
        wants_wgmma=True,
    )
