"""The kernels of YatConv that are compiled ahead of time."""

from collections.abc import Iterator
from itertools import product

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
    for mode in MODES:
        yield from _variants_of(mode, capability)


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


def _variants_of(mode: Mode, capability: int) -> Iterator[Variant]:
    large = large_tile(mode.precision, mode.itemsize, capability)
    shapes = {(large.m, large.n, large.warps), (large.m, 64, large.warps), (64, 64, 4)}
    blocks_k = (64, 32) if mode.itemsize == 2 else (32, 16)
    for (m, n, warps), k in product(sorted(shapes), blocks_k):
        tile = make_tile(m, n, k, warps, mode.precision, mode.itemsize, capability)
        yield _conv_variant(f"{m}x{n}x{k}", mode, tile, has_depth=False, even=True)
    tile = make_tile(64, 64, 16, 4, mode.precision, mode.itemsize, capability)
    for negative in (False, True):
        name = "general" + "_negative" * negative
        yield _conv_variant(name, mode, tile, has_depth=True, even=False, negative=negative)


def _conv_variant(
    name: str, mode: Mode, tile: Tile, *, has_depth: bool, even: bool, negative: bool = False
) -> Variant:
    constants = product_constants(mode, tile) | {
        "EVEN": even,
        "HAS_DEPTH": has_depth,
        "NEGATIVE": negative,
    }
    if not has_depth:
        constants["output_feat_stride"] = 1
        ones = ("depth_dim", "out_depth_dim", "kernel_depth", "depth_stride", "depth_dilation")
        constants |= dict.fromkeys(ones, 1) | {"depth_pad": 0}
    divisible = ("in_feat_dim", "out_feat_dim", "input_pixel_stride", "output_batch_stride")
    return make_variant(
        f"yat_conv_{mode.name}_{name}",
        "YatConv",
        yat_conv_forward_kernel,
        {
            "input_pointer": mode.dtype,
            "weight_pointer": mode.weight_dtype,
            "output_pointer": mode.dtype,
        },
        (
            "weight_plane_stride",
            "weight_out_feat_stride",
            *((*divisible, "output_pixel_stride") if even else ()),
        ),
        constants,
        tile.options,
        "tiles × groups",
        wants_wgmma=True,
    )
