"""Tile sizes of the kernels, and the compiler options that go with them."""

from dataclasses import dataclass

import triton

from nmn_export.kernels.device import shared_kib
from nmn_export.kernels.weights import PLANES, Float32Precision

_SIXTEEN_BIT_K, _FLOAT32_K = 64, 32

FEW_ROWS = 64
"""Rows of the largest small tile."""

PROGRAMS_PER_PROCESSOR = 2
"""Programs per SM: the epilogue of one overlaps the products of the other."""


@dataclass(frozen=True)
class Tile:
    """Block sizes of a kernel and its compiler options.

    Attributes:
        m: Output rows per tile.
        n: Output columns per tile.
        k: Features per step.
        warps: Warps per program.
        stages: Shared-memory buffers per operand.
        max_registers: Maximum number of registers per thread, or `None` for the compiler's choice.
    """

    m: int
    n: int
    k: int
    warps: int
    stages: int
    max_registers: int | None = None

    @property
    def options(self) -> dict[str, int]:
        """Compiler options."""
        options = {"num_warps": self.warps, "num_stages": self.stages}
        if self.max_registers is not None:
            options["maxnreg"] = self.max_registers
        return options


def make_tile(
    m: int, n: int, k: int, warps: int, precision: Float32Precision, itemsize: int, capability: int
) -> Tile:
    """Return a tile with two to four stages. Two programs share an SM if the memory allows it.

    A program of eight warps that shares an SM may use 128 registers per thread, half of the SM's
    65536. One of four warps may use 168, so that three programs fit, or 255 for float32. Without
    a limit the assembler aims at 128 and spills.
    """
    planes = PLANES[precision]
    weight_bytes = 2 * planes if planes > 1 else itemsize
    stage = k * (m * itemsize + n * weight_bytes)
    available = shared_kib(capability) * 1024
    shared = available // 2 >= 3 * stage
    stages = min(4, available // (2 if shared else 1) // stage)
    few_warps = 168 if itemsize == 2 else 255
    registers = few_warps if warps == 4 else 128 if shared else None
    return Tile(m, n, k, warps, max(2, stages), registers)


def large_tile(
    precision: Float32Precision, itemsize: int, capability: int, narrow: bool = False
) -> Tile:
    """Return the tile for outputs that have enough tiles to fill the GPU.

    `narrow` halves the columns. It is for outputs that are written element by element: the
    addresses of 128 columns do not fit the registers.
    """
    if itemsize == 4 and precision == "ieee":
        return make_tile(64, 64, 16, 4, precision, itemsize, capability)
    wide = itemsize == 2 and shared_kib(capability) > 200
    k = _SIXTEEN_BIT_K if wide else _FLOAT32_K
    # Split float32 needs registers for the parts of x: 128 columns would spill on mma.sync.
    n = 128 if itemsize == 2 and not narrow else 64
    return make_tile(128, n, k, 8, precision, itemsize, capability)


def small_tile(rows: int, precision: Float32Precision, itemsize: int, capability: int) -> Tile:
    """Return the tile for outputs of `rows` rows that have too few tiles to fill the GPU."""
    m = min(FEW_ROWS, max(16, triton.next_power_of_2(rows)))
    k = _SIXTEEN_BIT_K if itemsize == 2 else _FLOAT32_K
    if itemsize == 4 and precision == "ieee":
        k = 16
    return make_tile(m, 64, k, 4, precision, itemsize, capability)
