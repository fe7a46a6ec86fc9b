"""The layers that `benchmarks.gpu` measures, and all who compute them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from nmn_export.kernels.conv import launch as conv
from nmn_export.kernels.conv import weights as conv_weights
from nmn_export.kernels.dense import launch as dense
from nmn_export.kernels.row_norms import row_norms
from nmn_export.kernels.yat import yat
from nmn_export.ops import exact_yat_conv, exact_yat_dense, yat_conv, yat_dense

EPSILON = 1e-3
UNITS = 16
"""Of rounding, in (‖x‖² + ‖w‖²) u, that sums may gather; see tests/enclosure.py."""

Geometry = tuple[tuple[int, ...], ...]
"""Strides, pads and dilations."""

Call = Callable[[Tensor], Tensor]
"""Computes an input's output."""


@dataclass(frozen=True)
class Shape:
    """What is timed: x is [batch, features], or [batch, features, size, size] if there is a size.

    Attributes:
        batch: Rows or images.
        features: Of the input.
        outputs: Features of the output.
        size: Height and width.
        stride: Of the 3×3 filters.
    """

    batch: int
    features: int
    outputs: int
    size: int = 0
    stride: int = 1

    @property
    def name(self) -> str:
        """What the table calls it."""
        layer = f"{self.features}→{self.outputs}"
        if not self.size:
            return f"dense {layer} M{self.batch}"
        return f"conv 3×3 {layer} {self.size}² s{self.stride} b{self.batch}"

    @property
    def target(self) -> float:
        """The ratio to aim at: the ambitious goals of the design."""
        if self.size:
            return 1.10
        if self.batch <= 64:
            return 1.03
        return 1.04 if self.features >= 4096 else 1.06 if self.features >= 1024 else 1.08


SHAPES = (
    *(Shape(m, 4096, 4096) for m in (1, 16, 64, 4096, 65536)),
    *(Shape(m, 768, 3072) for m in (4096, 16384, 65536)),
    *(Shape(m, 1024, 4096) for m in (4096, 65536)),
    *(
        Shape(b, features, features * stride, size, stride)
        for size, features in ((56, 64), (28, 128), (14, 256), (7, 512))
        for stride in ((1, 2) if size > 7 else (1,))
        for b in (1, 32, 256)
    ),
)
TINY_SHAPES = (Shape(40, 32, 48), Shape(3, 32, 16), Shape(1, 16, 16, 5, 2))


@triton.jit
def yat_pass_kernel(
    dot_pointer, norm_pointer, column_term_pointer, bias_pointer, output_pointer,
    count, out_feat_dim, norm_scale, floor, BLOCK_SIZE: tl.constexpr,
):  # fmt: skip
    """The second of two kernels: the formula for every element of the linear layer's output."""
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


def eager(x: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry | None) -> Tensor:
    """Compute the layer with operators of PyTorch: a convolution if it has a geometry."""
    if geometry:
        return yat_conv(x, weight, bias, EPSILON, 1.0, *geometry)
    return yat_dense(x, weight, bias, EPSILON)


# Calls are captured in CUDA graphs of ours, so the compiler needs none.
compiled_eager = torch.compile(eager, mode="max-autotune-no-cudagraphs", dynamic=False)


class Subject:
    """A layer of one shape and dtype, with weights, and everyone who computes it."""

    def __init__(self, shape: Shape, dtype: torch.dtype, device: str) -> None:
        self.shape, self.dtype, self.device = shape, dtype, device
        kernel = (3, 3) if shape.size else ()
        fan_in = shape.features * len(kernel) ** 2 if kernel else shape.features
        weight = torch.randn(shape.outputs, shape.features, *kernel, device=device) / fan_in**0.5
        self.weight = weight.to(dtype)
        self.bias = torch.randn(shape.outputs, device=device).to(dtype)
        self.geometry = ((shape.stride,) * 2, (1,) * 4, (1,) * 2)
        if kernel:
            self.weight = self.weight.contiguous(memory_format=torch.channels_last)
            self.filters = conv_weights.prepare_conv(
                self.weight, self.bias, EPSILON, 1.0, 1, dtype=dtype
            )
            self.prepared = self.filters.prepared
        else:
            self.prepared = dense.prepare_dense(
                self.weight, self.bias, EPSILON, 1.0, False, dtype=dtype
            )

    @property
    def bytes(self) -> int:
        """Size of an input, its output and the weights, the least that a call has to move."""
        shape = self.shape
        size = max(1, shape.size)
        out_size = -(-size // shape.stride)
        moved = shape.batch * (shape.features * size**2 + shape.outputs * out_size**2)
        return (moved + self.weight.numel()) * self.dtype.itemsize

    def draw(self) -> Tensor:
        """Draw an input: normal, and half of it zeros, as after a ReLU."""
        spatial = (self.shape.size,) * 2 if self.shape.size else ()
        x = torch.randn(self.shape.batch, self.shape.features, *spatial, device=self.device)
        x = x.clamp_min(0).to(self.dtype)
        return x.contiguous(memory_format=torch.channels_last) if spatial else x

    def contestants(self, compiled: bool) -> dict[str, Call]:
        """Return who computes it, with torch.compile or without."""
        found = {
            "linear": self.linear,
            "fused": self.fused,
            "unfused": self.unfused,
            "eager": self.eager,
        }
        if compiled:
            found["compiled"] = self.compiled
        return found

    def linear(self, x: Tensor, with_bias: bool = True) -> Tensor:
        """Compute the layer that costs what ours aims at."""
        bias = self.bias if with_bias else None
        if self.shape.size:
            return F.conv2d(x, self.weight, bias, self.shape.stride, 1)
        return F.linear(x, self.weight, bias)

    def fused(self, x: Tensor) -> Tensor:
        """Compute the layer with our kernel."""
        if self.shape.size:
            return conv.yat_conv(x, self.filters, conv.Geometry.of(2, *self.geometry))
        return dense.yat_dense(x, self.prepared)

    def unfused(self, x: Tensor) -> Tensor:
        """Compute the layer with a library's product and one pass over it."""
        dot = self.linear(x, with_bias=False)
        if self.shape.size:
            pixels = row_norms(x.movedim(1, -1).flatten(0, 2))
            image = pixels.view(len(x), 1, *x.shape[2:])
            norms = F.avg_pool2d(image, 3, self.shape.stride, 1, divisor_override=1)
        else:
            norms = row_norms(x)
        y, block = torch.empty_like(dot), 1024
        yat_pass_kernel[(triton.cdiv(dot.numel(), block),)](
            dot, norms, self.prepared.column_term, self.prepared.bias, y, dot.numel(),
            self.shape.outputs, self.prepared.fold.norm_scale, self.prepared.fold.floor,
            BLOCK_SIZE=block,
        )  # fmt: skip
        return y

    def eager(self, x: Tensor) -> Tensor:
        """Compute the layer as PyTorch does without kernels of ours."""
        return eager(x, self.weight, self.bias, self.geometry if self.shape.size else None)

    def compiled(self, x: Tensor) -> Tensor:
        """Compute the eager layer as torch.compile makes it."""
        geometry = self.geometry if self.shape.size else None
        return compiled_eager(x, self.weight, self.bias, geometry)

    def exact(self, x: Tensor) -> Tensor:
        """Return the layer in float64."""
        arguments = (x, self.weight, self.bias, EPSILON, 1.0)
        if self.shape.size:
            return exact_yat_conv(*arguments, *self.geometry, 1)
        return exact_yat_dense(*arguments, False)


def near(subject: Subject, x: Tensor, y: Tensor, exact: Tensor) -> bool:
    """Return whether rounding can lead to `y`: the denominator may be off by UNITS of the norms."""
    bias = subject.bias.double()
    x64, w64 = x.double(), subject.weight.double()
    if subject.shape.size:
        bias = bias.view(-1, 1, 1)
        dot = F.conv2d(x64, w64, None, subject.shape.stride, 1)
        x_sq = F.conv2d(x64.square(), torch.ones_like(w64[:1]), None, subject.shape.stride, 1)
        w_sq = w64.square().sum((1, 2, 3)).view(-1, 1, 1)
    else:
        dot, x_sq, w_sq = x64 @ w64.T, x64.square().sum(1, keepdim=True), w64.square().sum(1)
    unit = UNITS * torch.finfo(torch.float32).eps
    distance, error = (x_sq + w_sq - 2 * dot).clamp_min(0), unit * (x_sq + w_sq)
    value, value_error = (dot + bias).abs(), unit * ((x_sq * w_sq).sqrt() + bias.abs())
    low = (value - value_error).clamp_min(0).square() / (distance + error + EPSILON)
    high = (value + value_error).square() / ((distance - error).clamp_min(0) + EPSILON)
    info = torch.finfo(y.dtype)
    slack = 2 * info.eps
    low, high = low * (1 - slack) - info.tiny, high * (1 + slack) + info.tiny
    right = (low <= y.double()) & (y.double() <= high) | (exact > info.max)
    return bool(right.all())
