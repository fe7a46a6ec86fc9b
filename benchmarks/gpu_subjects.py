"""The layers that the GPU benchmark measures, and the contestants that compute them.

linear:      the linear layer of the same shape, from cuBLAS or cuDNN; `benchmarks.gpu_layers`.
linear_tf32: the same with TF32, for float32.
fused:       the kernel of this package.
unfused:     the linear layer, and one hand-written pass over its output.
compiled:    the eager layer under torch.compile.
eager:       the eager layer.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, Protocol

import torch
import triton
import triton.language as tl
from torch import Tensor

from benchmarks.gpu_layers import EPSILON, LAYERS, Choice, ConvLayer
from benchmarks.gpu_queue import Candidate
from benchmarks.gpu_shapes import MODES, Shape
from nmn_export.kernels.dense import launch as dense
from nmn_export.kernels.device import device_of
from nmn_export.kernels.tile_size import make_tile
from nmn_export.kernels.yat import yat

UNITS = {"ieee": 16, "bf16x6": 16, "bf16x3": 16 + 3 * 2**7}
"""Allowed rounding error of sums by precision, in float32 roundings of ‖x‖² + ‖w‖².

bf16x3 loses up to 2^-16 of each operand, and leaves out the product of the second parts."""

ALLOWED_DIFFERENCE = 0.03
"""Allowed difference of fused and unfused outputs, as a fraction of the largest output. The dot
products of the unfused one are rounded to 16 bits."""


@triton.jit
def yat_pass_kernel(
    dot_pointer, norm_pointer, column_term_pointer, bias_pointer, output_pointer,
    count, out_feat_dim, norm_scale, floor, BLOCK_SIZE: tl.constexpr,
):  # fmt: skip
    """Apply the formula to every element of the linear layer's output."""
    offset = tl.program_id(0).to(tl.int64) * BLOCK_SIZE + tl.arange(0, BLOCK_SIZE)
    mask = offset < count
    column = offset % out_feat_dim
    dot = tl.load(dot_pointer + offset, mask=mask).to(tl.float32)
    norm = tl.load(norm_pointer + offset // out_feat_dim, mask=mask) * norm_scale
    column_term = tl.load(column_term_pointer + column, mask=mask)
    bias = tl.load(bias_pointer + column, mask=mask)
    dtype: tl.constexpr = output_pointer.dtype.element_ty
    y = yat(dot, norm, column_term, bias, -2.0 * norm_scale, floor, False, dtype)
    tl.store(output_pointer + offset, y, mask=mask)


def eager(
    formula: Callable[..., Tensor],
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    arguments: tuple[Any, ...],
) -> Tensor:
    """Compute the layer with PyTorch operators: `formula` with its `arguments` after α."""
    return formula(x, weight, bias, EPSILON, 1.0, *arguments)


@functools.cache
def compiled_eager() -> Callable[..., Tensor]:
    """Return `eager` under torch.compile. The import of the compiler takes seconds."""
    if os.environ.get("TRITON_INTERPRET") == "1":  # There is no GPU to compile for.
        return torch.compile(eager, backend="eager", dynamic=False)
    # The benchmark captures CUDA graphs itself.
    return torch.compile(eager, mode="max-autotune-no-cudagraphs", dynamic=False)


class Subject:
    """A layer of one shape and mode with random weights."""

    CONTESTANTS = ("linear", "fused", "unfused", "eager")

    def __init__(self, shape: Shape, mode: str, device: str) -> None:
        dtype_name, precision = MODES[mode]
        self.shape, self.mode, self.device = shape, mode, device
        self.dtype: torch.dtype = getattr(torch, dtype_name)
        self.layer = LAYERS[shape.kind](shape, self.dtype, precision, device)

    @property
    def bytes(self) -> int:
        """Bytes of the input, the output and the weights: the minimum that a call moves."""
        shape = self.shape
        pixels, out_pixels = (shape.size**2, shape.out_size**2) if shape.size else (1, 1)
        moved = shape.batch * (shape.features * pixels + shape.outputs * out_pixels)
        return (moved + self.layer.weight.numel()) * self.dtype.itemsize

    def draw(self) -> Tensor:
        """Return a random input: normal, with the negative half set to 0 as after a ReLU."""
        x = torch.randn(self.layer.input_shape(), device=self.device).clamp_min(0).to(self.dtype)
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x

    def planned(self) -> Choice:
        """Return the package's own choice for this shape."""
        return self.layer.planned(self.draw())

    def choice_of(self, candidate: Candidate) -> Choice:
        """Return a candidate of the tile sweep as the launch functions take it.

        Raises:
            ValueError: The features per step do not divide the filters' padded features.
        """
        device, precision = device_of(self.layer.weight), self.layer.prepared.precision
        m, n, k, warps = candidate.m, candidate.n, candidate.k, candidate.warps
        tile = make_tile(m, n, k, warps, precision, self.dtype.itemsize, device.capability)
        if isinstance(self.layer, ConvLayer):
            if self.layer.filters.block_k % k:
                raise ValueError(f"{candidate.name}: k must divide {self.layer.filters.block_k}")
            return tile
        if candidate.schedule == "split":
            return dense.DensePlan("split", tile, candidate.parts)
        tiles = triton.cdiv(self.shape.batch, m) * triton.cdiv(self.shape.outputs, n)
        programs = min(tiles, dense.PROGRAMS_PER_PROCESSOR * device.processors)
        return dense.DensePlan(candidate.schedule, tile, programs, device.has_descriptors)

    def linear(self, x: Tensor) -> Tensor:
        """Compute the linear layer of the same shape."""
        return self.layer.linear(x, self.layer.weight, self.layer.bias)

    def linear_tf32(self, x: Tensor) -> Tensor:
        """Compute the linear layer in float32 with TF32 products."""
        settings = (torch.backends.cuda.matmul, torch.backends.cudnn)
        try:
            for setting in settings:
                setting.allow_tf32 = True
            return self.linear(x)
        finally:
            for setting in settings:
                setting.allow_tf32 = False

    def fused(self, x: Tensor, choice: Choice | None = None) -> Tensor:
        """Compute the layer with the fused kernel; `None` uses the package's own choice."""
        return self.layer.fused(x, choice)

    def unfused(self, x: Tensor) -> Tensor:
        """Compute the layer with the linear layer and one pass over its output."""
        dot, norms = self.layer.linear(x, self.layer.weight), self.layer.norms(x)
        prepared, y, block = self.layer.prepared, torch.empty_like(dot), 1024
        yat_pass_kernel[(triton.cdiv(dot.numel(), block),)](
            dot, norms, prepared.column_term, prepared.bias, y, dot.numel(), self.shape.outputs,
            prepared.fold.norm_scale, prepared.fold.floor, BLOCK_SIZE=block,
        )  # fmt: skip
        return y

    def eager(self, x: Tensor) -> Tensor:
        """Compute the layer with PyTorch operators."""
        layer = self.layer
        return eager(layer.formula, x, layer.weight, layer.bias, layer.arguments)

    def compiled(self, x: Tensor) -> Tensor:
        """Compute the eager layer under torch.compile."""
        layer = self.layer
        return compiled_eager()(layer.formula, x, layer.weight, layer.bias, layer.arguments)

    def assert_close_to_unfused(self, choice: Choice | None = None) -> None:
        """Compare fused with unfused, also for shapes that are too large for float64.

        Raises:
            WrongResultError: They differ by more than rounding.
        """
        x = self.draw()
        y, reference = self.fused(x, choice).float(), self.unfused(x).float()
        difference, largest = (y - reference).abs().max(), reference.abs().max()
        if not difference <= ALLOWED_DIFFERENCE * largest:
            raise WrongResultError(
                f"{self.shape.name} in {self.mode} is wrong: it differs from unfused by "
                f"{difference:.3g}, where the largest output is {largest:.3g}"
            )

    def draw_near(self) -> Tensor:
        """Return a random input. One row of a dense layer is next to a weight."""
        x = self.draw()
        if not self.shape.size:
            x[0] = self.layer.weight[0] * 1.01
        return x

    def is_near_exact(self, x: Tensor, y: Tensor) -> bool:
        """Return whether `y` is within the rounding errors that `UNITS` allows."""
        return near(self, x, y, self.exact(x))

    def exact(self, x: Tensor) -> Tensor:
        """Return the layer in float64."""
        layer = self.layer
        return layer.exact(x, layer.weight, layer.bias, EPSILON, 1.0, *layer.arguments)


class WrongResultError(Exception):
    """A kernel's output is wrong or does not repeat."""


class Checked(Protocol):
    """What `check` needs of a subject."""

    shape: Any
    mode: str

    def draw_near(self) -> Tensor:
        """Return a random input, partly close to a weight or a key."""
        ...

    def fused(self, x: Tensor) -> Tensor:
        """Compute the output with the fused kernel."""
        ...

    def is_near_exact(self, x: Tensor, y: Tensor) -> bool:
        """Return whether rounding explains the difference of an output from float64."""
        ...


def check(subject: Checked, repetitions: int) -> None:
    """Check that the fused kernel agrees with float64 and repeats bit by bit.

    The interpreter runs programs one after another, so only a GPU shows a race.

    Raises:
        WrongResultError: It does not agree or does not repeat.
    """
    what = f"{subject.shape.name} in {subject.mode}"
    x = subject.draw_near()
    y = subject.fused(x)
    if not subject.is_near_exact(x, y):
        raise WrongResultError(f"{what} is wrong: it does not agree with float64")
    for repetition in range(1, repetitions + 1):
        if not torch.equal(y, subject.fused(x)):
            raise WrongResultError(
                f"{what} does not repeat: repetition {repetition} of "
                f"{repetitions} differs, so there is a race"
            )


def near(subject: Subject, x: Tensor, y: Tensor, exact: Tensor) -> bool:
    """Return whether `y` is within the rounding errors that `UNITS` allows."""
    layer = subject.layer
    x64, w64, bias = x.double(), layer.weight.double(), layer.bias.double()
    outputs = 1 if subject.shape.kind == "conv_transpose" else 0  # the axis of the weight
    w_sq = w64.square().movedim(outputs, 0).flatten(1).sum(1)
    if x.ndim == 4:
        w_sq, bias = w_sq.view(-1, 1, 1), bias.view(-1, 1, 1)
    dot = layer.linear(x64, w64)
    x_sq = layer.linear(x64.square(), torch.ones_like(w64.narrow(outputs, 0, 1)))
    unit = UNITS[layer.prepared.precision] * torch.finfo(torch.float32).eps
    distance, error = (x_sq + w_sq - 2 * dot).clamp_min(0), unit * (x_sq + w_sq)
    value, value_error = (dot + bias).abs(), unit * ((x_sq * w_sq).sqrt() + bias.abs())
    low = (value - value_error).clamp_min(0).square() / (distance + error + EPSILON)
    high = (value + value_error).square() / ((distance - error).clamp_min(0) + EPSILON)
    info = torch.finfo(y.dtype)
    slack = 2 * info.eps
    low, high = low * (1 - slack) - info.tiny, high * (1 + slack) + info.tiny
    right = (low <= y.double()) & (y.double() <= high) | (exact > info.max)
    return bool(right.all())
