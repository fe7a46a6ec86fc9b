"""A kernel as it is compiled ahead of time: the types of its arguments, and what is constant."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nmn_export.kernels.plan import Tile
from nmn_export.kernels.weights import PLANES, Float32Precision

WGMMA_ROWS = 64
"""Rows of the smallest tile that sm_90's asynchronous product takes."""

_FLOATS = ("norm_scale", "floor", "term_floor")


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


@dataclass(frozen=True)
class Variant:
    """One kernel as it is compiled.

    Attributes:
        name: File name without its ending.
        op: The ONNX op it belongs to; "" for those that belong to several.
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


def product_constants(mode: Mode, tile: Tile) -> dict[str, Any]:
    """Return the constants that kernels with a product in them share."""
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
