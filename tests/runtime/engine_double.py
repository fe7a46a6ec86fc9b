"""Doubles of the TensorRT classes that a runner uses, in CPU memory.

A context reads and writes at the addresses it was given, so that a wrong address, shape or order of
calls gives wrong numbers here, too.
"""

import contextlib
import ctypes
import types
from dataclasses import dataclass, field

import numpy as np
import torch

ALIGNMENT = 64
"""Alignment of PyTorch's allocations on a CPU, in bytes. On a GPU it is 256."""


def enum(name: str) -> types.SimpleNamespace:
    return types.SimpleNamespace(name=name)


@dataclass
class Tensor:
    """An input or output of the engine. An output has the shape of the first input."""

    name: str
    mode: str
    shape: tuple[int, ...] = (-1, 4)
    dtype: str = "FLOAT"
    location: str = "DEVICE"
    vectorized: int = -1


X, Y = Tensor("x", "INPUT"), Tensor("y", "OUTPUT")

PROFILE = {"x": ((1, 4), (2, 4), (8, 4))}


class Engine:
    """`ICudaEngine` of y = 2x."""

    def __init__(self, *tensors, profiles=(PROFILE,)) -> None:
        self.tensors = {tensor.name: tensor for tensor in tensors or (X, Y)}
        self.profiles = profiles
        self.contexts = []
        self.num_io_tensors = len(self.tensors)
        self.num_optimization_profiles = len(profiles)

    def get_tensor_name(self, index):
        return list(self.tensors)[index]

    def get_tensor_mode(self, name):
        return enum(self.tensors[name].mode)

    def get_tensor_dtype(self, name):
        return enum(self.tensors[name].dtype)

    def get_tensor_shape(self, name):
        return self.tensors[name].shape

    def get_tensor_location(self, name):
        return enum(self.tensors[name].location)

    def get_tensor_vectorized_dim(self, name):
        return self.tensors[name].vectorized

    def get_tensor_profile_shape(self, name, index):
        return list(self.profiles[index][name])

    def create_runtime_config(self):
        return types.SimpleNamespace(dynamic_shapes_kernel_specialization_strategy="LAZY")

    def create_execution_context(self, config=None):
        self.contexts.append(Context(self, config))
        return self.contexts[-1]


class Context:
    """`IExecutionContext`."""

    def __init__(self, engine, config) -> None:
        self.engine, self.config = engine, config
        self.profile = 0
        self.shapes, self.addresses = {}, {}
        self.fails = False

    def set_optimization_profile_async(self, index, stream):
        self.profile = index
        return True

    def set_input_shape(self, name, shape):
        low, _, high = self.engine.profiles[self.profile][name]
        fits = all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))
        self.shapes[name] = tuple(shape)
        return fits

    def set_tensor_address(self, name, address):
        if address == 0 or address % ALIGNMENT:
            return False
        self.addresses[name] = address
        return True

    def infer_shapes(self):
        inputs = (t.name for t in self.engine.tensors.values() if t.mode == "INPUT")
        return [name for name in inputs if name not in self.shapes]

    def get_tensor_shape(self, name):
        declared = self.engine.tensors[name].shape
        return declared if declared[0] == -2 else next(iter(self.shapes.values()))

    def execute_async_v3(self, stream):
        assert stream, "TensorRT is to run on a stream of its own"
        if self.fails:
            return False
        shape, read, write = self.shapes["x"], self.addresses["x"], self.addresses["y"]
        Gpu.now.do(f"execute {shape[0]} on {stream}", lambda: double(shape, read, write))
        return True


def double(shape, read, write):
    count = int(np.prod(shape))
    source = (ctypes.c_float * count).from_address(read)
    np.ctypeslib.as_array((ctypes.c_float * count).from_address(write))[:] = 2 * np.array(source)


@dataclass
class Gpu:
    """The parts of `torch.cuda` that a runner uses, executed synchronously on the CPU.

    Attributes:
        done: What was done, in order.
        recorded: Work of the CUDA graph that is being recorded, or `None`.
    """

    done: list[str] = field(default_factory=list)
    recorded: list | None = None
    streams: int = 0

    def do(self, what, work):
        if self.recorded is not None:
            self.recorded.append((what, work))
            return
        self.done.append(what)
        work()

    def install(self, monkeypatch):
        """Replace `torch.cuda` and the allocator."""
        Gpu.now = self
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: self.stream())
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(self, "caller"))
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: Graph(self))
        monkeypatch.setattr(torch.cuda, "graph", self.graph)
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)

    def stream(self):
        self.streams += 1
        return Stream(self, f"runner {self.streams}")

    @contextlib.contextmanager
    def graph(self, graph, stream, capture_error_mode):
        self.done.append("capture")
        self.recorded = graph.work
        try:
            yield
        finally:
            self.recorded = None


class Stream:
    """`torch.cuda.Stream`."""

    def __init__(self, gpu, name) -> None:
        self.gpu, self.name = gpu, name
        self.cuda_stream = name

    def wait_stream(self, other):
        self.gpu.done.append(f"{self.name} waits for {other.name}")

    def synchronize(self):
        self.gpu.done.append("synchronize")


class Graph:
    """`torch.cuda.CUDAGraph`: replays the recorded calls with the recorded addresses."""

    def __init__(self, gpu) -> None:
        self.gpu, self.work = gpu, []

    def replay(self):
        for what, work in self.work:
            self.gpu.do(f"replay {what}", work)
