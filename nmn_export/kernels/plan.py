"""How the work of a kernel is laid out on a device: tiles, stages, programs."""

import functools
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from nmn_export.kernels.weights import PLANES, Float32Precision

SHARED_KIB = {80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227, 120: 99, 121: 99}
"""Shared memory one program may have, in KiB, by compute capability (CUDA programming guide)."""

DESCRIPTOR_ALIGNMENT = 16
"""Bytes: base addresses and row strides of what the tensor memory accelerator copies."""

_SIXTEEN_BIT_K, _FLOAT32_K = 64, 32
_FEW_ROWS = 64


@dataclass(frozen=True)
class Device:
    """What of a device matters to a plan.

    Attributes:
        capability: Compute capability, 90 for an H100.
        processors: Streaming multiprocessors.
    """

    capability: int
    processors: int

    @property
    def has_descriptors(self) -> bool:
        """Whether it has a tensor memory accelerator."""
        return self.capability >= 90


@functools.cache
def _cuda_device(index: int) -> Device:
    properties = torch.cuda.get_device_properties(index)
    return Device(10 * properties.major + properties.minor, properties.multi_processor_count)


def device_of(tensor: Tensor) -> Device:
    """Return the device of `tensor`; the interpreter's is a small one without descriptors."""
    if not tensor.is_cuda:
        return Device(capability=80, processors=2)
    return _cuda_device(tensor.device.index)


@dataclass(frozen=True)
class Tile:
    """Block sizes and what the compiler is told about them.

    Attributes:
        m: Rows of the output per tile.
        n: Columns of the output per tile.
        k: Features per step.
        warps: Warps per program.
        stages: Shared-memory buffers per operand.
        max_registers: Registers a thread may have, or `None`.
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
        found = {"num_warps": self.warps, "num_stages": self.stages}
        if self.max_registers is not None:
            found["maxnreg"] = self.max_registers
        return found


def make_tile(
    m: int, n: int, k: int, warps: int, precision: Float32Precision, itemsize: int, capability: int
) -> Tile:
    """Return a tile with two to four stages, such that two programs share an SM where they can.

    Eight warps are then held to 128 of its 65536 registers a thread. Four are allowed 168, with
    which three programs fit, or for float32 255: told nothing, the assembler spills to stay at 128.
    """
    planes = PLANES[precision]
    weight_bytes = 2 * planes if planes > 1 else itemsize
    stage = k * (m * itemsize + n * weight_bytes)
    whole = SHARED_KIB.get(capability, 99) * 1024
    shared = whole // 2 >= 3 * stage
    stages = min(4, whole // (2 if shared else 1) // stage)
    few_warps = 168 if itemsize == 2 else 255
    registers = few_warps if warps == 4 else 128 if shared else None
    return Tile(m, n, k, warps, max(2, stages), registers)


def large_tile(
    precision: Float32Precision, itemsize: int, capability: int, narrow: bool = False
) -> Tile:
    """Return the tile for when there are enough of them to fill the device.

    With `narrow`, for outputs that have to be written element by element: the addresses of 128
    columns need more registers than there are.
    """
    if itemsize == 4 and precision == "ieee":
        return make_tile(64, 64, 16, 4, precision, itemsize, capability)
    wide = itemsize == 2 and SHARED_KIB.get(capability, 99) > 200
    k = _SIXTEEN_BIT_K if wide else _FLOAT32_K
    # Split float32 needs registers for the parts of x: 128 columns would spill on mma.sync.
    n = 128 if itemsize == 2 and not narrow else 64
    return make_tile(128, n, k, 8, precision, itemsize, capability)


def small_tile(rows: int, precision: Float32Precision, itemsize: int, capability: int) -> Tile:
    """Return the tile for when there are not."""
    m = min(_FEW_ROWS, max(16, triton.next_power_of_2(rows)))
    k = _SIXTEEN_BIT_K if itemsize == 2 else _FLOAT32_K
    if itemsize == 4 and precision == "ieee":
        k = 16
    return make_tile(m, 64, k, 4, precision, itemsize, capability)


def can_describe(rows: Tensor) -> bool:
    """Return whether the tensor memory accelerator can copy tiles of `rows`."""
    pitch = rows.stride(0) * rows.element_size()
    return (
        rows.numel() > 0
        and rows.data_ptr() % DESCRIPTOR_ALIGNMENT == 0
        and pitch % DESCRIPTOR_ALIGNMENT == 0
    )


_ARRIVALS: dict[tuple[torch.device, int], Tensor] = {}


def arrivals(tiles: int, device: torch.device) -> Tensor:
    """Return zeros for programs to count in that leave them zero again.

    They are kept for each stream, in whose order kernels cannot disturb each other. A captured
    CUDA graph may be replayed on any stream, so it gets its own.
    """
    if device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return torch.zeros(tiles, device=device, dtype=torch.int32)
    key = (device, torch.cuda.current_stream(device).cuda_stream)
    held = _ARRIVALS.get(key)
    if held is None or len(held) < tiles:
        held = torch.zeros(triton.next_power_of_2(tiles), device=device, dtype=torch.int32)
        _ARRIVALS[key] = held
    return held
