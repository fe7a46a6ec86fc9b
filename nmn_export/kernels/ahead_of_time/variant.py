"""Description of a kernel to compile ahead of time: argument types, constants and options."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nmn_export.kernels.tile_size import Tile
from nmn_export.kernels.weights import PLANES, Float32Precision

WGMMA_ROWS = 64
"""Rows of the smallest tile that the asynchronous product of sm_90 (wgmma) supports."""

TRITON_DTYPES = ("fp16", "bf16", "fp32")
"""Triton's names of the supported dtypes."""

_FLOATS = (
    *("norm_scale", "floor", "term_floor", "mask_scale", "epsilon", "sign", "power"),
    *("negative_factor", "start_exponent", "start_sum"),
)


@dataclass(frozen=True)
class Mode:
    """A dtype and how its products are computed.

    Attributes:
        name: Name in file names.
        dtype: Triton's name of the dtype of the input and the output.
        weight_dtype: Triton's name of the dtype of the weight's planes.
        precision: How float32 products are computed.
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
"""The modes that kernels are compiled for."""


@dataclass(frozen=True)
class Variant:
    """A kernel to compile.

    Attributes:
        name: File name without extension.
        op: The ONNX op whose output it computes; "" for kernels that run before it. The plugin
            library has no kernels of ops that are not declared, such as CausalLinearAttention.
        kernel: The Triton function.
        types: Triton types of the run-time arguments, in order.
        divisible: Run-time arguments that are multiples of 16 (pointers: in bytes).
        constants: Compile-time arguments.
        options: Compiler options: warps, stages, registers.
        grid: Number of programs to launch, in words.
        wants_wgmma: Whether it must use wgmma on sm_90.
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


def make_variant(
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
    """Return a variant, with the types of the run-time arguments filled in.

    `elements` has the element types of pointers and the types of descriptors; the other pointers
    are to float32. The other arguments are int32, but for the few named in `_FLOATS`.
    """
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


def product_constants(mode: Mode, tile: Tile) -> dict[str, Any]:
    """Return the constants that all kernels with a product share."""
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
