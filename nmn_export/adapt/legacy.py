"""The formula of `nmn` 0.2.6 and earlier.

y = (⟨x, w⟩² / (‖x − w‖² + ε) + b) · (√n / ln(1 + n))^α,    n the number of outputs

The quotient is that of our layers without bias and α, so it is exported as one ⵟ op.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nmn_export.adapt import conv, conv_transpose, dense
from nmn_export.adapt.adapter import Adapter
from nmn_export.layers import (
    YatConv1d,
    YatConv2d,
    YatConv3d,
    YatConvTranspose1d,
    YatConvTranspose2d,
    YatConvTranspose3d,
    YatDense,
    YatLayer,
)
from nmn_export.layers.folded import FoldedYat
from nmn_export.ops.yat import Scalar


class _LegacyLayer(YatLayer):
    """Adds the bias after the division, and scales by a power."""

    def effective_bias(self) -> None:
        """Return `None`: the op has no bias."""

    def effective_alpha(self) -> Scalar:
        """Return 1: the op has no α."""
        return 1.0

    def scale(self) -> Scalar:
        """Return (√n / ln(1 + n))^α, or 1 for a layer without α."""
        base = math.sqrt(self.out_count) / math.log1p(self.out_count)
        return 1.0 if self.alpha is None else base**self.alpha

    def added_bias(self) -> Tensor | None:
        """Return the bias in a shape that broadcasts to the output, or `None`."""
        return None if self.bias is None else self.bias.reshape(-1, *[1] * (self.weight.ndim - 2))

    def _product(
        self, op: Callable[..., Tensor], eager: Callable[..., Tensor], *arguments: Any
    ) -> Tensor:
        quotient = super()._product(op, eager, *arguments)
        return _add_and_scale(quotient, self.added_bias(), self.scale())

    def fold(self) -> FoldedYat:
        """Return the layer as inference needs it: one op, and the rest in a forward hook."""
        folded = super().fold()
        bias = self.added_bias()
        folded.register_buffer("added_bias", None if bias is None else bias.detach())
        with torch.no_grad():
            folded.register_forward_hook(partial(_finish, float(self.scale())))
        return folded


def _finish(scale: float, folded: Any, inputs: tuple[Tensor, ...], quotient: Tensor) -> Tensor:
    del inputs
    return _add_and_scale(quotient, folded.added_bias, scale)


def _add_and_scale(quotient: Tensor, bias: Tensor | None, scale: Scalar) -> Tensor:
    return (quotient if bias is None else quotient + bias.to(quotient.dtype)) * scale


class LegacyYatDense(_LegacyLayer, YatDense):  # type: ignore[misc]
    """`YatNMN` of these releases."""


class LegacyYatConv1d(_LegacyLayer, YatConv1d):  # type: ignore[misc]
    """`YatConv1d` of these releases."""


class LegacyYatConv2d(_LegacyLayer, YatConv2d):  # type: ignore[misc]
    """`YatConv2d` of these releases."""


class LegacyYatConv3d(_LegacyLayer, YatConv3d):  # type: ignore[misc]
    """`YatConv3d` of these releases."""


class LegacyYatConvTranspose1d(_LegacyLayer, YatConvTranspose1d):  # type: ignore[misc]
    """`YatConvTranspose1d` of these releases."""


class LegacyYatConvTranspose2d(_LegacyLayer, YatConvTranspose2d):  # type: ignore[misc]
    """`YatConvTranspose2d` of these releases."""


class LegacyYatConvTranspose3d(_LegacyLayer, YatConvTranspose3d):  # type: ignore[misc]
    """`YatConvTranspose3d` of these releases."""


_PARAMETERS = ("weight", "bias", "alpha")

ADAPTERS = (
    {"YatNMN": Adapter(dense.builder(LegacyYatDense), _PARAMETERS)}
    | {
        f"YatConv{cls.rank}d": Adapter(conv.builder(cls), _PARAMETERS, ("mask",))
        for cls in (LegacyYatConv1d, LegacyYatConv2d, LegacyYatConv3d)
    }
    | {
        f"YatConvTranspose{cls.rank}d": Adapter(conv_transpose.builder(cls), _PARAMETERS, ("mask",))
        for cls in (LegacyYatConvTranspose1d, LegacyYatConvTranspose2d, LegacyYatConvTranspose3d)
    }
)
