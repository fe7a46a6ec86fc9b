"""The three kinds of layers that the GPU benchmark measures, each with its linear counterpart."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu_shapes import Shape
from nmn_export.kernels.conv import images
from nmn_export.kernels.conv import launch as conv
from nmn_export.kernels.conv.weights import ConvWeights, prepare_conv
from nmn_export.kernels.conv_transpose import launch as conv_transpose
from nmn_export.kernels.conv_transpose.weights import prepare_conv_transpose
from nmn_export.kernels.dense import launch as dense
from nmn_export.kernels.dense.weights import prepare_dense
from nmn_export.kernels.device import device_of
from nmn_export.kernels.row_norms import row_norms
from nmn_export.kernels.tile_size import Tile
from nmn_export.kernels.weights import Float32Precision, Prepared
from nmn_export.ops import (
    exact_yat_conv,
    exact_yat_conv_transpose,
    exact_yat_dense,
    yat_conv,
    yat_conv_transpose,
    yat_dense,
)

EPSILON = 1e-3

Choice = dense.DensePlan | Tile
"""What is chosen for a shape: the plan of a dense layer or the tile of a convolution."""


class DenseLayer:
    """YatDense with random parameters.

    Attributes:
        formula: The eager op.
        exact: The op in float64.
        arguments: Arguments of both after α.
        weight: The weight.
        bias: One number per output.
        prepared: The prepared weight.
    """

    formula: ClassVar[Callable[..., Tensor]] = staticmethod(yat_dense)
    exact: ClassVar[Callable[..., Tensor]] = staticmethod(exact_yat_dense)

    def __init__(
        self, shape: Shape, dtype: torch.dtype, precision: Float32Precision | None, device: str
    ) -> None:
        self.shape = shape
        weight = torch.randn(shape.outputs, shape.features, device=device) / shape.features**0.5
        self.weight = weight.to(dtype)
        self.bias = torch.randn(shape.outputs, device=device).to(dtype)
        self.arguments: tuple[Any, ...] = (False,)
        self.prepared: Prepared = prepare_dense(
            self.weight, self.bias, EPSILON, 1.0, False, dtype=dtype, precision=precision
        )

    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the input."""
        return (self.shape.batch, self.shape.features)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Compute the linear layer of this shape."""
        return F.linear(x, weight, bias)

    def norms(self, x: Tensor) -> Tensor:
        """Return ‖x‖², float32, one for each row of the output."""
        return row_norms(x)

    def planned(self, x: Tensor) -> Choice:
        """Return the package's own choice for this shape."""
        features = self.prepared.planes.shape[2]  # Inputs are padded like the weight.
        return dense.plan_dense(
            len(x), self.shape.outputs, features, x.dtype, self.prepared.precision, device_of(x)
        )

    def fused(self, x: Tensor, choice: Choice | None) -> Tensor:
        """Compute the layer with the fused kernel; `None` uses the package's own choice."""
        assert choice is None or isinstance(choice, dense.DensePlan)
        return dense.yat_dense(x, self.prepared, choice)


class ConvLayer:
    """YatConv with random parameters; the attributes are those of `DenseLayer`.

    Attributes:
        positions: Strides, pads and dilations.
        filters: The prepared filters, with their sizes.
    """

    formula: ClassVar[Callable[..., Tensor]] = staticmethod(yat_conv)
    exact: ClassVar[Callable[..., Tensor]] = staticmethod(exact_yat_conv)

    def __init__(
        self, shape: Shape, dtype: torch.dtype, precision: Float32Precision | None, device: str
    ) -> None:
        self.shape = shape
        fan_in = shape.features * shape.kernel**2
        weight = torch.randn(*self._weight_shape(), device=device) / fan_in**0.5
        self.weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        self.bias = torch.randn(shape.outputs, device=device).to(dtype)
        self.positions = ((shape.stride,) * 2, (shape.pad,) * 4, (1,) * 2)
        self.arguments: tuple[Any, ...] = (*self.positions, 1)
        self.filters = self._prepare(dtype, precision)
        self.prepared: Prepared = self.filters.prepared

    def _weight_shape(self) -> tuple[int, ...]:
        return (self.shape.outputs, self.shape.features, *(self.shape.kernel,) * 2)

    def _prepare(self, dtype: torch.dtype, precision: Float32Precision | None) -> ConvWeights:
        return prepare_conv(
            self.weight, self.bias, EPSILON, 1.0, 1, dtype=dtype, precision=precision
        )

    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the input."""
        return (self.shape.batch, self.shape.features, *(self.shape.size,) * 2)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Compute the convolution of this shape."""
        return F.conv2d(x, weight, bias, self.shape.stride, self.shape.pad)

    def norms(self, x: Tensor) -> Tensor:
        """Return ‖p‖², float32, one for each pixel of the output."""
        pixels = row_norms(x.movedim(1, -1).flatten(0, 2)).view(len(x), 1, *x.shape[2:])
        return self._sums_over_patches(pixels)

    def _sums_over_patches(self, pixels: Tensor) -> Tensor:
        shape = self.shape
        return F.avg_pool2d(pixels, shape.kernel, shape.stride, shape.pad, divisor_override=1)

    def planned(self, x: Tensor) -> Choice:
        """Return the package's own choice for this shape."""
        patches = len(x) * self.shape.out_size**2
        return images.plan_conv(patches, self.filters, True, x.element_size(), device_of(x))

    def fused(self, x: Tensor, choice: Choice | None) -> Tensor:
        """Compute the layer with the fused kernel; `None` uses the package's own choice."""
        assert choice is None or isinstance(choice, Tile)
        geometry = images.Geometry.of("YatConv", 2, *self.positions)
        return conv.yat_conv(x, self.filters, geometry, choice)


class ConvTransposeLayer(ConvLayer):
    """YatConvTranspose with random parameters; the attributes are those of `ConvLayer`."""

    formula: ClassVar[Callable[..., Tensor]] = staticmethod(yat_conv_transpose)
    exact: ClassVar[Callable[..., Tensor]] = staticmethod(exact_yat_conv_transpose)

    def __init__(
        self, shape: Shape, dtype: torch.dtype, precision: Float32Precision | None, device: str
    ) -> None:
        super().__init__(shape, dtype, precision, device)
        self.arguments = (*self.positions, (0, 0), 1)

    def _weight_shape(self) -> tuple[int, ...]:
        return (self.shape.features, self.shape.outputs, *(self.shape.kernel,) * 2)

    def _prepare(self, dtype: torch.dtype, precision: Float32Precision | None) -> ConvWeights:
        return prepare_conv_transpose(
            self.weight, self.bias, EPSILON, 1.0, 1, dtype=dtype, precision=precision
        )

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Compute the transposed convolution of this shape."""
        return F.conv_transpose2d(x, weight, bias, self.shape.stride, self.shape.pad)

    def _sums_over_patches(self, pixels: Tensor) -> Tensor:
        return self.linear(pixels, pixels.new_ones(1, 1, *(self.shape.kernel,) * 2))

    def fused(self, x: Tensor, choice: Choice | None) -> Tensor:
        """Compute the layer with the fused kernel; `None` uses the package's own choice."""
        assert choice is None or isinstance(choice, Tile)
        geometry = images.Geometry.of("YatConvTranspose", 2, *self.positions)
        return conv_transpose.yat_conv_transpose(x, self.filters, geometry, (0, 0), choice)


Layer = DenseLayer | ConvLayer

LAYERS: dict[str, type[Layer]] = {
    "dense": DenseLayer,
    "conv": ConvLayer,
    "conv_transpose": ConvTransposeLayer,
}
