"""What every ⵟ layer has in common: its weights, bias, α and ε, and all the ways to choose them."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nmn_export.errors import NmnExportError
from nmn_export.layers.folded import FoldedYat
from nmn_export.ops.yat import HALF_PRECISIONS, UNIT_NORM_GUARD, Scalar, compute_dtype


class YatLayer(nn.Module):
    """Base of the ⵟ layers.

    Attributes:
        weight: Filters or prototypes along axis 0. There may be more of them than outputs, as in a
            kernel bank shared between layers; the first `out_count` are used.
        bias: [out_count] or [1], or `None`.
        alpha: [1] where α is learned, else `None`; the exponent where the scale is geometric.
        epsilon_param: [1] where ε is learned (ε = softplus of it), else `None`.
        mask: Buffer that multiplies the weights, or `None`.
        dtype: Input and parameters are cast to it; `None` takes the input's.
    """

    bias: nn.Parameter | None
    alpha: nn.Parameter | None
    epsilon_param: nn.Parameter | None
    mask: Tensor | None

    def __init__(
        self,
        weight_shape: tuple[int, ...],
        *,
        bias: bool,
        constant_bias: float | None,
        softplus_bias: bool,
        scalar_bias: bool,
        alpha: bool | Literal["geometric"],
        constant_alpha: float | bool | None,
        epsilon: float,
        learnable_epsilon: bool,
        weight_normalized: bool,
        use_dropconnect: bool,
        drop_rate: float,
        mask: Tensor | None,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        if not (math.isfinite(epsilon) and epsilon > 0):
            raise NmnExportError(
                "epsilon must be a positive finite number", got=epsilon, fix="Use 1e-5, say."
            )
        if not 0 <= drop_rate < 1:
            raise NmnExportError(
                "drop_rate must be in [0, 1)", got=drop_rate, fix="Use 0 to keep every weight."
            )
        if alpha not in (True, False, "geometric"):
            raise NmnExportError(
                "alpha must be True, False or 'geometric'",
                got=repr(alpha),
                fix="Use constant_alpha for a number.",
            )
        for name, constant in (("bias", constant_bias), ("alpha", constant_alpha)):
            if constant is not None and not math.isfinite(constant):
                raise NmnExportError(
                    f"constant_{name} must be finite", got=constant, fix="Use another number."
                )
        if mask is not None and not _broadcasts(mask.shape, weight_shape):
            raise NmnExportError(
                f"mask must broadcast to the weights, of shape {weight_shape}",
                got=f"shape {tuple(mask.shape)}",
                fix="Give it that shape.",
            )
        self.out_count = weight_shape[0]
        if constant_bias is False:  # as upstream's dense layer takes it
            constant_bias = None
        self.constant_bias = None if constant_bias is None else float(constant_bias)
        self.softplus_bias = softplus_bias
        self.geometric_alpha = alpha == "geometric"
        if constant_alpha is True:
            constant_alpha = math.sqrt(2)
        self.constant_alpha = (
            None if constant_alpha is None or constant_alpha is False else float(constant_alpha)
        )
        self.epsilon = epsilon
        self.weight_normalized = weight_normalized
        self.use_dropconnect = use_dropconnect
        self.drop_rate = drop_rate
        self.dtype = dtype

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, device=device, dtype=dtype))

        self.weight = parameter(*weight_shape)
        has_bias = bias and self.constant_bias is None
        bias_size = 1 if scalar_bias else self.out_count
        self.register_parameter("bias", parameter(bias_size) if has_bias else None)
        has_alpha = bool(alpha) and self.constant_alpha is None
        self.register_parameter("alpha", parameter(1) if has_alpha else None)
        epsilon_param = torch.empty(1, device=device, dtype=compute_dtype(dtype or torch.float32))
        self.register_parameter(
            "epsilon_param", nn.Parameter(epsilon_param) if learnable_epsilon else None
        )
        self.register_buffer("mask", mask)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as `nn.Linear` does; bias 0, α 1, a learned ε at `epsilon`."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if self.alpha is not None:
            nn.init.ones_(self.alpha)
        if self.epsilon_param is not None:
            # The inverse of softplus, in the form that keeps its digits for a small ε.
            nn.init.constant_(
                self.epsilon_param, self.epsilon + math.log(-math.expm1(-self.epsilon))
            )

    def fold(self) -> FoldedYat:
        """Return the layer as inference needs it: one op, its parameters computed once."""
        raise NotImplementedError

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "YatLayer":
        """Convert and move as any module, but keep a learned ε from the half precisions.

        Nearly every ε of use is zero in float16.
        """
        before = None if self.epsilon_param is None else self.epsilon_param.detach().clone()
        super()._apply(fn, recurse)
        after = self.epsilon_param
        if before is not None and after is not None and after.dtype in HALF_PRECISIONS:
            after.data = before.float().to(after.device)
        return self

    def effective_weight(self, drop: bool = False) -> Tensor:
        """Return the weights as the op sees them: sliced, dropped out, masked and normalised."""
        weight = self.weight[: self.out_count]
        if drop and self.use_dropconnect:
            weight = F.dropout(weight, self.drop_rate)
        if self.mask is not None or self.weight_normalized:
            # The op rounds to its own dtype; weights stored in half are not to be rounded before.
            weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
        if self.mask is not None:
            weight = weight * self.mask
        if self.weight_normalized:
            norm = torch.linalg.vector_norm(weight.flatten(1), dim=1)
            weight = weight / (norm + UNIT_NORM_GUARD).reshape(-1, *[1] * (weight.ndim - 1))
        return weight

    def effective_bias(self) -> Tensor | None:
        """Return the bias as [out_count], or `None`."""
        if self.constant_bias is not None:
            # A constant has the digits it was given, even if the weights are stored in half.
            dtype = torch.promote_types(self.weight.dtype, torch.float32)
            return self.weight.new_full((self.out_count,), self.constant_bias, dtype=dtype)
        if self.bias is None:
            return None
        bias = F.softplus(self.bias) if self.softplus_bias else self.bias
        return bias.expand(self.out_count)

    def effective_alpha(self) -> Scalar:
        """Return the multiplier; the geometric one is (n / ln(1 + n)) to the power of α."""
        alpha: Scalar | None = self.alpha if self.alpha is not None else self.constant_alpha
        if self.geometric_alpha:
            scale = self.out_count / math.log1p(self.out_count)
            return scale ** (1.0 if alpha is None else alpha)
        return 1.0 if alpha is None else alpha

    def effective_epsilon(self) -> Scalar:
        """Return ε, of one element if it is learned."""
        return self.epsilon if self.epsilon_param is None else F.softplus(self.epsilon_param)

    def _product(
        self,
        op: Callable[..., Tensor],
        eager: Callable[..., Tensor],
        x: Tensor,
        drop: bool,
        *geometry: object,
    ) -> Tensor:
        """Apply the torch op where it has a fused kernel, and else its eager formula.

        Args:
            op: The torch op, which wants numbers for ε and α.
            eager: The differentiable formula.
            x: Input of the op.
            drop: Whether to drop weights.
            geometry: The arguments after α.
        """
        weight, bias = self.effective_weight(drop), self.effective_bias()
        epsilon, alpha = self.effective_epsilon(), self.effective_alpha()
        learned = isinstance(alpha, Tensor)
        # A half precision saturates after α, so that there α cannot come after the op.
        narrow = compute_dtype(x.dtype) != x.dtype
        if not has_kernels(x) or isinstance(epsilon, Tensor) or (learned and narrow):
            return eager(x, weight, bias, epsilon, alpha, *geometry)
        y = op(x, weight, bias, epsilon, 1.0 if learned else alpha, *geometry)
        return y * alpha if learned else y

    def _check_input(self, x: Tensor, rank: int | None, channel_axis: int, channels: int) -> Tensor:
        """Return `x` in the layer's dtype, or say what is wrong with it."""
        name = type(self).__name__
        x = x if self.dtype is None else x.to(self.dtype)
        if not x.is_floating_point():
            raise NmnExportError(
                f"{name} takes floating-point input", got=x.dtype, fix="Call .float() on it."
            )
        if rank is not None and x.ndim != rank:
            raise NmnExportError(
                f"{name} takes input of {rank} dimensions (batch and channels included)",
                got=f"shape {tuple(x.shape)}",
                fix="Add or remove dimensions.",
            )
        if x.ndim == 0 or x.shape[channel_axis] != channels:
            raise NmnExportError(
                f"{name} takes {channels} input channels",
                got=f"{x.shape[channel_axis] if x.ndim else 'none'} in shape {tuple(x.shape)}",
                fix="Give it an input, or build it with an input size, that fits.",
            )
        return x


def has_kernels(x: Tensor) -> bool:
    """Tell whether the torch ops are faster than eager formulas on the device of `x`."""
    return x.is_cuda


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Tell whether a tensor of `shape` broadcasts to `target`."""
    return len(shape) <= len(target) and all(
        size in (1, wanted) for size, wanted in zip(shape[::-1], target[::-1], strict=False)
    )
