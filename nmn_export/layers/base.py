"""The base of all ⵟ layers: their parameters and the options that they share."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nmn_export.errors import NmnExportError
from nmn_export.layers.folded import Foldable, FoldedParameters, FoldedYat
from nmn_export.layers.kernel_bank import BankKey, KernelBanks, resolved_device
from nmn_export.layers.options import (
    Initializer,
    SharedOptions,
    check_options,
    inverse_softplus,
    number,
)
from nmn_export.ops.yat import UNIT_NORM_GUARD, Scalar, compute_dtype


class YatLayer(Foldable):
    """Base of the ⵟ layers.

    Attributes:
        weight: Filters or prototypes along axis 0. A kernel bank may have more of them than the
            layer has outputs; the layer uses the first `out_count`.
        bias: [out_count] or [1], or `None`.
        alpha: [1] if α is learned, else `None`. With a geometric scale it is the exponent.
        epsilon_param: [1] if ε is learned (ε = softplus of it), else `None`.
        mask: Buffer that multiplies the weights, or `None`.
        dtype: Inputs and parameters are cast to it. `None` stands for the dtype of the input.
        param_dtype: Dtype that the parameters are stored in.
    """

    bias: nn.Parameter | None
    alpha: nn.Parameter | None
    epsilon_param: nn.Parameter | None
    mask: Tensor | None

    # Under upstream's name, because training scripts clear the registry between models.
    _KERNEL_BANKS: ClassVar[KernelBanks] = KernelBanks()

    def __init__(
        self, weight_shape: tuple[int, ...], bank_kind: tuple[object, ...], options: SharedOptions
    ) -> None:
        super().__init__()
        dtype, device = options["dtype"], options["device"]
        storage = options["param_dtype"] or dtype or torch.get_default_dtype()
        # Nearly every useful ε is zero in float16.
        epsilon_dtype = compute_dtype(storage)
        check_options(options, weight_shape, epsilon_dtype)
        self.out_count = weight_shape[0]
        self.constant_bias = number(options["constant_bias"])
        constant_alpha = options["constant_alpha"]
        self.constant_alpha = math.sqrt(2) if constant_alpha is True else number(constant_alpha)
        self.geometric_alpha = options["alpha"] == "geometric"
        self.use_alpha = bool(options["alpha"]) or self.constant_alpha is not None
        self.epsilon = options["epsilon"]
        self.learnable_epsilon = options["learnable_epsilon"]
        self.weight_normalized = options["weight_normalized"]
        self.positive_init = options["positive_init"]
        self.lazy = options["lazy"]
        self.use_dropconnect = options["use_dropconnect"]
        self.drop_rate = options["drop_rate"]
        self.dtype = dtype
        self.param_dtype = storage
        self.tie_kernel_bank = options["tie_kernel_bank"]
        self.kernel_bank_size = options["kernel_bank_size"]
        self.kernel_bank_id = options["kernel_bank_id"]

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, device=device, dtype=storage))

        self._bank_key: BankKey | None = None
        if self.tie_kernel_bank:
            rows = self.kernel_bank_size or self.out_count
            place = (storage, resolved_device(device))
            self._bank_key = (self.kernel_bank_id, type(self).__name__, *bank_kind, *place)
            self.weight = self._KERNEL_BANKS.get(
                self._bank_key,
                (rows, *weight_shape[1:]),
                lambda shape: self._initialized(parameter(*shape), options["kernel_init"]),
                frozen=self.lazy,
            )
        else:
            self.weight = parameter(*weight_shape)
            self.weight.requires_grad_(not self.lazy)
        has_bias = options["bias"] and self.constant_bias is None
        self.scalar_bias = options["scalar_bias"] and has_bias
        self.softplus_bias = options["softplus_bias"] and has_bias
        bias = parameter(1 if self.scalar_bias else self.out_count) if has_bias else None
        self.register_parameter("bias", bias)
        has_alpha = bool(options["alpha"]) and self.constant_alpha is None
        self.register_parameter("alpha", parameter(1) if has_alpha else None)
        raw_epsilon = torch.empty(1, device=device, dtype=epsilon_dtype)
        self.register_parameter(
            "epsilon_param", nn.Parameter(raw_epsilon) if self.learnable_epsilon else None
        )
        self.register_buffer("mask", options["mask"])
        if not self.tie_kernel_bank:
            self._initialized(self.weight, options["kernel_init"])
        self._reset_others(options["bias_init"], options["alpha_init"])

    def reset_parameters(
        self,
        kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        alpha_init: Initializer | None = None,
    ) -> None:
        """Initialise all parameters.

        Args:
            kernel_init: For the weights; by default as `nn.Linear` initialises them.
            bias_init: For the bias; zeros by default.
            alpha_init: For α; one by default. A learned ε starts at `epsilon`.
        """
        self._initialized(self.weight, kernel_init)
        self._reset_others(bias_init, alpha_init)

    def _reset_others(self, bias_init: Initializer | None, alpha_init: Initializer | None) -> None:
        if self.bias is not None:
            (bias_init or nn.init.zeros_)(self.bias)
        if self.alpha is not None:
            (alpha_init or nn.init.ones_)(self.alpha)
        if self.epsilon_param is not None:
            nn.init.constant_(self.epsilon_param, inverse_softplus(self.epsilon))

    def _initialized(self, weight: nn.Parameter, kernel_init: Initializer | None) -> nn.Parameter:
        if kernel_init is None:
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        else:
            kernel_init(weight)
        if self.positive_init:
            with torch.no_grad():
                weight.abs_()
        return weight

    @property
    def use_bias(self) -> bool:
        """Whether the layer adds a bias, learned or constant."""
        return self.bias is not None or self.constant_bias is not None

    @property
    def _constant_alpha_value(self) -> float | None:
        """The constant α under the name that upstream's layers give it."""
        return self.constant_alpha

    @property
    def _constant_bias_value(self) -> float | None:
        """The constant bias under the name that upstream's layers give it."""
        return self.constant_bias

    def fold(self) -> FoldedYat:
        """Return the layer as inference needs it: one op, with its parameters computed once."""
        raise NotImplementedError

    def folded_parameters(self) -> FoldedParameters:
        """Return the parameters of the op."""
        with torch.no_grad():
            return FoldedParameters(
                weight=self.effective_weight().detach(),
                bias=self.effective_bias(),
                epsilon=float(self.effective_epsilon()),
                alpha=float(self.effective_alpha()),
                dtype=self.dtype,
            )

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "YatLayer":
        """Convert and move parameters as any module does, but keep the dtype of a learned ε.

        Nearly every useful ε is zero in float16.
        """
        before = None if self.epsilon_param is None else self.epsilon_param.detach().clone()
        super()._apply(fn, recurse)
        after = self.epsilon_param
        if before is not None and after is not None and after.dtype != before.dtype:
            after.data = before.to(after.device)
        return self

    def effective_weight(self, drop: bool = False) -> Tensor:
        """Return the weights of the op: sliced, dropped out, masked and normalised.

        Args:
            drop: Whether to drop weights out.
        """
        if self._bank_key is not None:
            self._KERNEL_BANKS.use(self._bank_key)
        weight = self.weight[: self.out_count]
        if drop and self.use_dropconnect:
            weight = F.dropout(weight, self.drop_rate)
        if self.mask is not None or self.weight_normalized:
            # The op rounds to its own dtype. Weights in half precision must not be rounded before.
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
            # A constant keeps its digits, even if the weights are in half precision.
            dtype = torch.promote_types(self.weight.dtype, torch.float32)
            return self.weight.new_full((self.out_count,), self.constant_bias, dtype=dtype)
        if self.bias is None:
            return None
        bias = F.softplus(self.bias) if self.softplus_bias else self.bias
        return bias.expand(self.out_count)

    def effective_alpha(self) -> Scalar:
        """Return the multiplier. The geometric one is (n / ln(1 + n)) to the power of α."""
        alpha: Scalar | None = self.alpha if self.alpha is not None else self.constant_alpha
        if self.geometric_alpha:
            scale = self.out_count / math.log1p(self.out_count)
            return scale ** (1.0 if alpha is None else alpha)
        return 1.0 if alpha is None else alpha

    def effective_epsilon(self) -> Scalar:
        """Return ε as a number, or as a tensor of one element if it is learned."""
        return self.epsilon if self.epsilon_param is None else F.softplus(self.epsilon_param)

    def _shared_repr(self) -> str:
        """Return the options of `YatLayer` that have other values than the defaults."""
        others = {
            "constant_bias": (self.constant_bias, None),
            "softplus_bias": (self.softplus_bias, False),
            "scalar_bias": (self.scalar_bias, False),
            "alpha": ("geometric" if self.geometric_alpha else self.use_alpha, True),
            "constant_alpha": (self.constant_alpha, None),
            "epsilon": (self.epsilon, None),
            "learnable_epsilon": (self.learnable_epsilon, False),
            "weight_normalized": (self.weight_normalized, False),
            "lazy": (self.lazy, False),
            "tie_kernel_bank": (self.tie_kernel_bank, False),
            "dtype": (self.dtype, None),
        }
        shown = [f"{name}={value}" for name, (value, default) in others.items() if value != default]
        return "".join(f", {option}" for option in shown)

    def _product(
        self,
        op: Callable[..., Tensor],
        eager: Callable[..., Tensor],
        x: Tensor,
        drop: bool,
        *geometry: object,
    ) -> Tensor:
        """Apply the torch op if it has a fused kernel for the device, and else the eager formula.

        Args:
            op: The torch op. It takes numbers for ε and α.
            eager: The differentiable formula.
            x: Input of the op.
            drop: Whether to drop weights out.
            geometry: The arguments after α.
        """
        weight, bias = self.effective_weight(drop), self.effective_bias()
        epsilon, alpha = self.effective_epsilon(), self.effective_alpha()
        learned = isinstance(alpha, Tensor)
        # Outputs in half precision saturate after α, so α cannot be multiplied after the op.
        narrow = compute_dtype(x.dtype) != x.dtype
        if not has_kernels(x) or isinstance(epsilon, Tensor) or (learned and narrow):
            return eager(x, weight, bias, epsilon, alpha, *geometry)
        y = op(x, weight, bias, epsilon, 1.0 if learned else alpha, *geometry)
        return y * alpha if learned else y

    def _check_input(self, x: Tensor, rank: int | None, channel_axis: int, channels: int) -> Tensor:
        """Return `x` in the dtype of the layer, or raise `NmnExportError`."""
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
                fix="Change the input, or the input size of the layer.",
            )
        return x


def has_kernels(x: Tensor) -> bool:
    """Return whether the torch ops have fused kernels on the device of `x`."""
    return x.is_cuda
