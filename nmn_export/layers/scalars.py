"""The two numbers of every ⵟ layer: α and ε, each learned or constant."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nmn_export.layers.folded import Foldable
from nmn_export.layers.options import Initializer, inverse_softplus, number
from nmn_export.ops.yat import Scalar, compute_dtype


class YatScalars(Foldable):
    """Base of all layers that compute ⵟ-products.

    Attributes:
        alpha: [1] if α is learned, else `None`.
        epsilon_param: [1] if ε is learned (ε = softplus of it), else `None`.
    """

    alpha: nn.Parameter | None
    epsilon_param: nn.Parameter | None

    def _add_scalars(
        self,
        *,
        use_alpha: bool,
        constant_alpha: float | bool | None,
        epsilon: float,
        learnable_epsilon: bool,
        device: torch.device | str | None,
        storage: torch.dtype,
    ) -> None:
        """Register α and ε, without values, for options that `check_scalars` has checked.

        Args:
            use_alpha: Whether to learn α, unless it is constant.
            constant_alpha: The constant α; `True` stands for √2, and `False` for none.
            epsilon: ε, or where a learned one starts.
            learnable_epsilon: Whether to learn ε.
            device: Of the parameters.
            storage: Dtype of α. A learned ε is in float32 or wider.
        """
        self.constant_alpha = math.sqrt(2) if constant_alpha is True else number(constant_alpha)
        self.use_alpha = use_alpha or self.constant_alpha is not None
        self.epsilon = epsilon
        self.learnable_epsilon = learnable_epsilon

        def parameter(dtype: torch.dtype, learned: bool) -> nn.Parameter | None:
            return nn.Parameter(torch.empty(1, device=device, dtype=dtype)) if learned else None

        has_alpha = use_alpha and self.constant_alpha is None
        self.register_parameter("alpha", parameter(storage, has_alpha))
        self.register_parameter(
            "epsilon_param", parameter(compute_dtype(storage), learnable_epsilon)
        )

    def _reset_scalars(self, alpha_init: Initializer | None = None) -> None:
        """Set α to one or as `alpha_init` does, and a learned ε to `epsilon`."""
        if self.alpha is not None:
            (alpha_init or nn.init.ones_)(self.alpha)
        if self.epsilon_param is not None:
            nn.init.constant_(self.epsilon_param, inverse_softplus(self.epsilon))

    @property
    def _constant_alpha_value(self) -> float | None:
        """The constant α under the name that upstream's layers give it."""
        return self.constant_alpha

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "YatScalars":
        """Convert and move parameters as any module does, but keep the dtype of a learned ε.

        Nearly every useful ε is zero in float16.
        """
        before = None if self.epsilon_param is None else self.epsilon_param.detach().clone()
        super()._apply(fn, recurse)
        after = self.epsilon_param
        if before is not None and after is not None and after.dtype != before.dtype:
            after.data = before.to(after.device)
        return self

    def effective_alpha(self) -> Scalar:
        """Return the multiplier as a number, or as a tensor of one element if it is learned."""
        if self.alpha is not None:
            return self.alpha
        return 1.0 if self.constant_alpha is None else self.constant_alpha

    def effective_epsilon(self) -> Scalar:
        """Return ε as a number, or as a tensor of one element if it is learned."""
        raw = self.epsilon_param
        # Releases of nmn before 0.3.3 store it in half precision, but do not round ε to it.
        return self.epsilon if raw is None else F.softplus(raw.to(compute_dtype(raw.dtype)))

    def _yat(
        self,
        op: Callable[..., Tensor],
        eager: Callable[..., Tensor],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *geometry: object,
    ) -> Tensor:
        """Apply the torch op if it has a fused kernel for the device, and else the eager formula.

        Args:
            op: The torch op. It takes numbers for ε and α.
            eager: The differentiable formula.
            x: Input of the op.
            weight: Weights of the op.
            bias: Bias of the op.
            geometry: The arguments after α.
        """
        epsilon, alpha = self.effective_epsilon(), self.effective_alpha()
        learned = isinstance(alpha, Tensor)
        # Outputs in half precision saturate after α, so α cannot be multiplied after the op.
        narrow = compute_dtype(x.dtype) != x.dtype
        if not has_kernels(x) or isinstance(epsilon, Tensor) or (learned and narrow):
            return eager(x, weight, bias, epsilon, alpha, *geometry)
        y = op(x, weight, bias, epsilon, 1.0 if learned else alpha, *geometry)
        return y * alpha if learned else y


def has_kernels(x: Tensor) -> bool:
    """Return whether the torch ops have fused kernels on the device of `x`."""
    return x.is_cuda
