"""A fake GPU: executes the launches of the plugin library in Triton's interpreter."""

import ctypes
import functools
import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from triton.tools.tensor_descriptor import TensorDescriptor

from nmn_export.kernels.ahead_of_time.variant import Variant
from nmn_export.kernels.ahead_of_time.variants import variants

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "build/plugin"
KERNELS = ROOT / "build/kernels"

DTYPES = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "i32": torch.int32,
}

LAUNCHER = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_char_p,
    ctypes.c_uint32,
    ctypes.c_uint32,
    ctypes.c_uint32,
    ctypes.c_uint32,
    ctypes.POINTER(ctypes.c_void_p),
)


class Map(ctypes.Structure):
    """A tensor map of the fake driver, see fake_cuda.cpp."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("sizes", ctypes.c_uint64 * 2),
        ("pitch", ctypes.c_uint64),
        ("box", ctypes.c_uint32 * 2),
        ("type", ctypes.c_uint32),
        ("swizzle", ctypes.c_uint32),
    )


@dataclass
class Device:
    """A device of the fake driver.

    Attributes:
        capability: Compute capability.
        launched: Number of launches of each variant.
        grids: Grids with which each variant was launched.
        errors: Tracebacks of failed launches.
    """

    capability: int
    launched: dict[str, int] = field(default_factory=dict)
    grids: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def launch(
        self,
        image: int,
        symbol: bytes,
        grid: tuple[int, int],
        threads: int,
        shared: int,
        values: Any,
    ) -> None:
        """Execute a kernel in the interpreter."""
        built = _identify(image, symbol.decode(), self.capability)
        assert threads == built["threads"]
        assert shared == built["shared_bytes"]
        variant = _variants(self.capability)[built["name"]]
        arguments = _Reader(values, built).read()
        for name in variant.divisible:
            value = arguments[name]
            number = value.data_ptr() if isinstance(value, torch.Tensor) else value
            assert number % 16 == 0, f"{variant.name} requires a multiple of 16 for {name}"
        self.launched[variant.name] = self.launched.get(variant.name, 0) + 1
        self.grids.setdefault(variant.name, set()).add(grid)
        variant.kernel[grid](**arguments, **variant.constants)


@functools.cache
def _variants(capability: int) -> dict[str, Variant]:
    return {variant.name: variant for variant in variants(capability)}


@functools.cache
def _manifest() -> list[dict[str, Any]]:
    kernels: list[dict[str, Any]] = json.loads((KERNELS / "manifest.json").read_text())["kernels"]
    return kernels


@functools.cache
def _identify(image: int, symbol: str, capability: int) -> dict[str, Any]:
    """Return the entry of the manifest for the image at an address."""
    for built in _manifest():
        if built["symbol"] == symbol and built["capability"] == capability:
            content = (KERNELS / built["file"]).read_bytes()
            if ctypes.string_at(image, len(content)) == content:
                return built
    raise AssertionError(f"no kernel {symbol} for {capability} has this image")


class _Reader:
    """Reads arguments as the driver does: one pointer for each parameter of the function."""

    def __init__(self, values: Any, built: dict[str, Any]) -> None:
        self.values = values
        self.built = built
        self.position = 0
        self.tiles = iter(built["tensor_descriptors"])

    def read(self) -> dict[str, Any]:
        arguments = {name: self._argument(kind) for name, kind in self.built["arguments"].items()}
        scratch = [self._next(ctypes.c_uint64) for _ in range(2)]
        assert scratch == [0, 0]
        assert self.position == len(self.built["parameters"])
        return arguments

    def _next(self, kind: Any) -> Any:
        address = self.values[self.position]
        self.position += 1
        value = kind.from_address(address)
        return getattr(value, "value", value)

    def _argument(self, kind: str) -> Any:
        if kind.startswith("tensordesc"):
            return self._descriptor(kind)
        if kind.startswith("*"):
            return _memory(self._next(ctypes.c_uint64), DTYPES[kind[1:]])
        return self._next(ctypes.c_float if kind == "fp32" else ctypes.c_int32)

    def _descriptor(self, kind: str) -> TensorDescriptor:
        made = self._next(Map)
        shape = [self._next(ctypes.c_int32) for _ in range(2)]
        strides = [self._next(ctypes.c_int64) for _ in range(2)]
        tile = next(self.tiles)
        assert list(made.box) == tile["block_size"][::-1]
        assert made.swizzle == tile["swizzle"]
        assert list(made.sizes) == shape[::-1]
        assert made.pitch == strides[0] * tile["elem_size"]
        dtype = DTYPES[kind.removeprefix("tensordesc<").partition("[")[0]]
        return TensorDescriptor(_memory(made.data, dtype), shape, strides, tile["block_size"])


def _memory(address: int, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor at an address. The interpreter only uses its address and dtype."""
    assert address, "a null pointer"
    return torch.frombuffer((ctypes.c_byte * dtype.itemsize).from_address(address), dtype=dtype)


@contextmanager
def fake_device(capability: int, processors: int = 2) -> Iterator[Device]:
    """Load the fake driver into the process, with one device."""
    library = ctypes.CDLL(str(PLUGIN / "fake/libcuda.so.1"), mode=ctypes.RTLD_GLOBAL)
    device = Device(capability)

    @LAUNCHER
    def launcher(
        image: int, symbol: bytes, x: int, y: int, threads: int, shared: int, values: Any
    ) -> int:
        try:
            device.launch(image, symbol, (x, y), threads, shared, values)
        except Exception:
            device.errors.append(traceback.format_exc())
            return 1
        return 0

    library.fakeCudaSetUp(launcher, capability, processors)
    yield device
    library.fakeCudaSetUp(LAUNCHER(0), capability, processors)


def run_cases(folder: Path) -> int:
    """Run the C++ test on the cases in a folder, in this process; returns its exit status."""
    library = ctypes.CDLL(str(PLUGIN / "libnmn_plugin_test_library.so"))
    plugin, cases = str(PLUGIN / "libnmn_plugin.so"), str(folder)
    status: int = library.nmnPluginTest(plugin.encode(), cases.encode())
    return status
