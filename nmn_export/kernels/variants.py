"""Which kernels are compiled ahead of time: the schedules, dtypes and tiles that plans choose."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from nmn_export.kernels.conv_kernels import yat_conv_forward_kernel
from nmn_export.kernels.dense import GROUP_SIZE_M
from nmn_export.kernels.dense_kernels import (
    yat_dense_forward_kernel,
    yat_dense_split_forward_kernel,
)
from nmn_export.kernels.norms import BLOCK_SIZE_FEAT, BLOCK_SIZE_ROW, row_norm_kernel
from nmn_export.kernels.plan import Tile, large_tile, make_tile, small_tile
from nmn_export.kernels.prepare import PLANES, Float32Precision

PERSISTENT = "min(tiles, 2 per multiprocessor)"

_WGMMA_ROWS = 64
"""Rows of the smallest tile that sm_90's asynchronous product takes."""

_DENSE_DIVISIBLE = ("in_feat_dim", "out_feat_dim", "input_batch_stride", "output_batch_stride")
_FLOATS = ("norm_scale", "floor")


@dataclass(frozen=True)
class Mode:
    """A dtype and how its products are made.

    Attributes:
        name: As in file names.
        dtype: Triton's name of the input's and the output's type.
        weight_dtype: That of the planes of the weight.
        precision: As in `prepare`.
    """

    name: str
    dtype: str
    weight_dtype: str
    precision: Float32Precision

    @property
    def itemsize(self) -> int:
        """Bytes of an element of the input."""
        return 4 if self.dtype == "fp32" else 2


MODES = (
    Mode("fp16", "fp16", "fp16", "ieee"),
    Mode("bf16", "bf16", "bf16", "ieee"),
    Mode("fp32_bf16x3", "fp32", "bf16", "bf16x3"),
    Mode("fp32_bf16x6", "fp32", "bf16", "bf16x6"),
)


@dataclass(frozen=True)
class Variant:
    """One kernel as it is compiled.

    Attributes:
        name: File name without its ending.
        op: The ONNX op it belongs to; "" for the norms, which belong to several.
        kernel: The Triton function.
        types: Triton types of the parameters that are left at run time, in order.
        divisible: Those of them that are multiples of 16 (pointers: in bytes).
        constants: The other parameters.
        options: Compiler options: warps, stages, registers.
        grid: How many programs to launch, in words.
        wants_wgmma: Whether its products are asynchronous on sm_90.
    """

    name: str
    op: str
    kernel: Any
    types: Mapping[str, str]
    divisible: tuple[str, ...]
    constants: Mapping[str, Any]
    options: Mapping[str, int]
    grid: str
    wants_wgmma: bool


def variants(capability: int) -> Iterator[Variant]:
    """Yield what is compiled for `capability`."""
    for dtype in ("fp16", "bf16", "fp32"):
        yield _norm(dtype)
    for mode in MODES:
        yield from _dense(mode, capability)
        yield from _conv(mode, capability)


def _norm(dtype: str) -> Variant:
    constants = {
        "TRUNCATE": False,
        "BLOCK_SIZE_ROW": BLOCK_SIZE_ROW,
        "BLOCK_SIZE_FEAT": BLOCK_SIZE_FEAT,
    }
    return _variant(
        f"row_norm_{dtype}",
        "",
        row_norm_kernel,
        {"input_pointer": dtype},
        ("input_row_stride",),
        constants,
        {"num_warps": 4, "num_stages": 3},
        f"rows / {BLOCK_SIZE_ROW}",
        wants_wgmma=False,
    )


def _dense(mode: Mode, capability: int) -> Iterator[Variant]:
    tile = large_tile(mode.precision, mode.itemsize, capability)
    for schedule in ("grouped", "row_stationary"):
        name = f"yat_dense_{mode.name}_{schedule}"
        yield _persistent(name, mode, tile, schedule, descriptor=capability >= 90, even=True)
    # Element by element, as features of any number must be copied, a large tile spills.
    tile = small_tile(_WGMMA_ROWS, mode.precision, mode.itemsize, capability)
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
    for rows in (16, 64):
        yield _split(mode, small_tile(rows, mode.precision, mode.itemsize, capability))


def _gemm_constants(mode: Mode, tile: Tile) -> dict[str, Any]:
    return {
        "HAS_BIAS": True,
        "NEGATIVE": False,
        "PLANES": PLANES[mode.precision],
        "PRECISION": "ieee",
        "EVEN": True,
        "BLOCK_SIZE_M": tile.m,
        "BLOCK_SIZE_N": tile.n,
        "BLOCK_SIZE_K": tile.k,
    }


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
    constants = _gemm_constants(mode, tile) | {
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
    divisible = _DENSE_DIVISIBLE if even else ()
    return _variant(
        name,
        "YatDense",
        yat_dense_forward_kernel,
        element,
        (*divisible, "weight_out_feat_stride"),
        constants,
        tile.options,
        PERSISTENT,
        wants_wgmma=True,
    )


def _split(mode: Mode, tile: Tile) -> Variant:
    return _variant(
        f"yat_dense_{mode.name}_split_{tile.m}x{tile.n}",
        "YatDense",
        yat_dense_split_forward_kernel,
        {
            "input_pointer": mode.dtype,
            "weight_pointer": mode.weight_dtype,
            "output_pointer": mode.dtype,
            "arrival_pointer": "i32",
        },
        (*_DENSE_DIVISIBLE, "weight_out_feat_stride"),
        _gemm_constants(mode, tile) | {"SPHERICAL": False, "column_scale_pointer": None},
        tile.options,
        "tiles × parts",
        wants_wgmma=tile.m >= _WGMMA_ROWS,
    )


def _conv(mode: Mode, capability: int) -> Iterator[Variant]:
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
    constants = _gemm_constants(mode, tile) | {
        "EVEN": even,
        "HAS_DEPTH": has_depth,
        "NEGATIVE": negative,
    }
    if not has_depth:
        constants["output_feat_stride"] = 1
        ones = ("depth_dim", "out_depth_dim", "kernel_depth", "depth_stride", "depth_dilation")
        constants |= dict.fromkeys(ones, 1) | {"depth_pad": 0}
    divisible = ("in_feat_dim", "out_feat_dim", "input_pixel_stride", "output_batch_stride")
    return _variant(
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


def _variant(
    name: str,
    op: str,
    kernel: Any,
    elements: Mapping[str, str],
    divisible: tuple[str, ...],
    constants: Mapping[str, Any],
    options: Mapping[str, int],
    grid: str,
    *,
    wants_wgmma: bool,
) -> Variant:
    """Type the parameters that are no constants: pointers as `elements` says, else to float32."""
    types = {}
    for parameter in kernel.arg_names:
        element = elements.get(parameter, "fp32")
        if parameter in constants:
            continue
        if element.startswith("tensordesc"):
            types[parameter] = element
        elif parameter in elements or parameter.endswith("_pointer"):
            types[parameter] = f"*{element}"
        else:
            types[parameter] = "fp32" if parameter in _FLOATS else "i32"
    pointers = tuple(p for p, kind in types.items() if kind.startswith("*"))
    return Variant(
        name, op, kernel, types, (*pointers, *divisible), constants, options, grid, wants_wgmma
    )
