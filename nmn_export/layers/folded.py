"""ⵟ layers as inference needs them: everything that touches parameters only is computed once."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from nmn_export.layers.base import YatLayer


class FoldedYat(nn.Module):
    """Weights [O, ...], bias [O] (zero if the layer has none), and ε and α as numbers."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: "YatLayer") -> None:
        super().__init__()
        with torch.no_grad():
            weight = layer.effective_weight()
            bias = layer.effective_bias()
            self.epsilon = float(layer.effective_epsilon())
            self.alpha = float(layer.effective_alpha())
        if bias is None:
            bias = weight.new_zeros(len(weight))
        self.dtype = layer.dtype
        self.register_buffer("weight", weight.detach().contiguous())
        self.register_buffer("bias", bias.detach().contiguous())

    def product(self, x: Tensor) -> Tensor:
        """Apply the op alone, without what the layer does to its input first."""
        raise NotImplementedError

    def forward(self, x: Tensor, deterministic: bool | None = None) -> Tensor:
        """Map what the layer maps; `deterministic` is accepted for the layer's callers."""
        del deterministic
        return self.product(x)

    def _operands(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return input, weight and bias in one dtype: the layer's, or else the input's."""
        x = x if self.dtype is None else x.to(self.dtype)
        return x, self.weight.to(x.dtype), self.bias.to(x.dtype)


class FoldedYatDense(FoldedYat):
    """One `nmn::yat_dense`."""

    def __init__(self, layer: "YatLayer", *, spherical: bool) -> None:
        super().__init__(layer)
        self.spherical = spherical

    def product(self, x: Tensor) -> Tensor:
        """Map [..., K] to [..., N]."""
        y: Tensor = torch.ops.nmn.yat_dense(
            *self._operands(x), self.epsilon, self.alpha, self.spherical
        )
        return y


class FoldedYatConv(FoldedYat):
    """One `nmn::yat_conv`, after the padding that the op does not know."""

    def __init__(
        self,
        layer: "YatLayer",
        *,
        padder: nn.Module | None,
        strides: tuple[int, ...],
        pads: tuple[int, ...],
        dilations: tuple[int, ...],
        group: int,
    ) -> None:
        super().__init__(layer)
        self.padder = padder
        self.strides = strides
        self.pads = pads
        self.dilations = dilations
        self.group = group

    def forward(self, x: Tensor, deterministic: bool | None = None) -> Tensor:
        """Map what the layer maps; `deterministic` is accepted for the layer's callers."""
        del deterministic
        return self.product(x if self.padder is None else self.padder(x))

    def product(self, x: Tensor) -> Tensor:
        """Map [B, C, *S], padded by whatever but zeros, to [B, O, *S']."""
        y: Tensor = torch.ops.nmn.yat_conv(
            *self._operands(x),
            self.epsilon,
            self.alpha,
            self.strides,
            self.pads,
            self.dilations,
            self.group,
        )
        return y
