"""ⵟ layers as inference needs them: whatever depends only on parameters is computed once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nmn_export.layers.output_size import output_padding_for


def copy_hooks(source: nn.Module, target: nn.Module) -> None:
    """Let a module that replaces another one have its forward hooks, after those it has itself."""
    for name, hooks in vars(source).items():
        if name.startswith("_forward_"):
            getattr(target, name).update(hooks)


@dataclass(frozen=True)
class FoldedParameters:
    """The parameters of an op.

    Attributes:
        weight: [O, ...], unless the op says otherwise.
        bias: [O], or `None`.
        epsilon: ε.
        alpha: α.
        dtype: Inputs and parameters are cast to it. `None` stands for the dtype of the input.
    """

    weight: Tensor
    bias: Tensor | None
    epsilon: float
    alpha: float
    dtype: torch.dtype | None


class Folded(nn.Module):
    """A layer as inference needs it.

    Attributes:
        dtype: Inputs and parameters are cast to it. `None` stands for the dtype of the input.
    """

    dtype: torch.dtype | None


class Foldable(nn.Module):
    """A layer that is replaced for inference."""

    def fold(self) -> nn.Module:
        """Return the layer as inference needs it, with its parameters computed once.

        It may hold modules and tensors of this layer. An export copies the modules.
        """
        raise NotImplementedError


class FoldedYat(Folded):
    """A layer that is one op: weights, a bias [O] (perhaps zeros), and numbers ε and α."""

    weight: Tensor
    bias: Tensor

    def __init__(self, parameters: FoldedParameters, out_count: int | None = None) -> None:
        super().__init__()
        weight, bias = parameters.weight, parameters.bias
        if bias is None:
            bias = weight.new_zeros(len(weight) if out_count is None else out_count)
        self.epsilon, self.alpha = parameters.epsilon, parameters.alpha
        self.dtype = parameters.dtype
        self.register_buffer("weight", weight.detach().contiguous())
        self.register_buffer("bias", bias.detach().contiguous())

    def product(self, x: Tensor) -> Tensor:
        """Apply the op, without the padding that the layer applies to its input."""
        raise NotImplementedError

    def _operands(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return input, weight and bias in the dtype of the layer, or else of the input."""
        x = x if self.dtype is None else x.to(self.dtype)
        return x, self.weight.to(x.dtype), self.bias.to(x.dtype)


class FoldedYatDense(FoldedYat):
    """One `nmn::yat_dense`."""

    def __init__(self, parameters: FoldedParameters, *, spherical: bool) -> None:
        super().__init__(parameters)
        self.spherical = spherical

    def forward(self, x: Tensor, deterministic: bool | None = None) -> Tensor:
        """Map the input of the layer to its output. `deterministic` has no effect in inference."""
        del deterministic
        return self.product(x)

    def product(self, x: Tensor) -> Tensor:
        """Map [..., K] to [..., N]."""
        y: Tensor = torch.ops.nmn.yat_dense(
            *self._operands(x), self.epsilon, self.alpha, self.spherical
        )
        return y


class FoldedYatConv(FoldedYat):
    """One `nmn::yat_conv`, after any padding that the op does not support."""

    def __init__(
        self,
        parameters: FoldedParameters,
        *,
        padder: nn.Module | None,
        strides: tuple[int, ...],
        pads: tuple[int, ...],
        dilations: tuple[int, ...],
        group: int,
    ) -> None:
        super().__init__(parameters)
        self.padder = padder
        self.strides = strides
        self.pads = pads
        self.dilations = dilations
        self.group = group

    def forward(self, input: Tensor, deterministic: bool | None = None) -> Tensor:
        """Map the input of the layer to its output. `deterministic` has no effect in inference."""
        if input.ndim == self.weight.ndim - 1:
            return self.forward(input.unsqueeze(0), deterministic).squeeze(0)
        return self.product(input if self.padder is None else self.padder(input))

    def product(self, x: Tensor) -> Tensor:
        """Map [B, C, *S], already padded by other values than zeros, to [B, O, *S']."""
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


class FoldedYatConvTranspose(FoldedYat):
    """One `nmn::yat_conv_transpose`."""

    def __init__(
        self,
        parameters: FoldedParameters,
        *,
        strides: tuple[int, ...],
        pads: tuple[int, ...],
        dilations: tuple[int, ...],
        output_padding: tuple[int, ...],
        group: int,
    ) -> None:
        super().__init__(parameters, out_count=parameters.weight.shape[1] * group)
        self.strides = strides
        self.pads = pads
        self.dilations = dilations
        self.output_padding = output_padding
        self.group = group

    def forward(
        self,
        input: Tensor,
        output_size: Sequence[int] | None = None,
        deterministic: bool | None = None,
    ) -> Tensor:
        """Map the input of the layer to its output. `deterministic` has no effect in inference."""
        if input.ndim == self.weight.ndim - 1:
            return self.forward(input.unsqueeze(0), output_size, deterministic).squeeze(0)
        if output_size is None:
            return self.product(input)
        kernel = self.weight.shape[2:]
        geometry = (kernel, self.strides, self.pads, self.dilations)
        return self.product(input, output_padding_for(output_size, input.shape, *geometry))

    def product(self, x: Tensor, output_padding: Sequence[int] | None = None) -> Tensor:
        """Map [B, C, *S] to [B, O, *S'], with other output padding than the layer's if given."""
        y: Tensor = torch.ops.nmn.yat_conv_transpose(
            *self._operands(x),
            self.epsilon,
            self.alpha,
            self.strides,
            self.pads,
            self.dilations,
            self.output_padding if output_padding is None else output_padding,
            self.group,
        )
        return y
