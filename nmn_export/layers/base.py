"""The base of all ⵟ layers: their parameters and the options that they share."""

import math
from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nmn_export.errors import NmnExportError
from nmn_export.layers.folded import FoldedParameters, FoldedYat
from nmn_export.layers.kernel_bank import BankKey, KernelBanks, resolved_device
from nmn_export.layers.options import (
    Initializer,
    SharedOptions,
    check_options,
    number,
)
from nmn_export.layers.scalars import YatScalars
from nmn_export.ops.yat import UNIT_NORM_GUARD, Scalar, compute_dtype


class YatLayer(YatScalars):
    """Base of the ⵟ layers that have filters or prototypes.

    Attributes:
        weight: Filters or prototypes, along axis 0 unless a layer says otherwise. A kernel bank may
            have more of them than the layer has outputs; the layer uses the first `out_count`.
        out_count: Number of outputs.
        bias: [out_count] or [1], or `None`.
        alpha: [1] if α is learned, else `None`. With a geometric scale it is the exponent.
        mask: Buffer that multiplies the weights, or `None`.
        dtype: Inputs and parameters are cast to it. `None` stands for the dtype of the input.
        param_dtype: Dtype that the parameters are stored in.
    """

    bias: nn.Parameter | None
    mask: Tensor | None

    # Under upstream's name, because training scripts clear the registry between models.
    _KERNEL_BANKS: ClassVar[KernelBanks] = KernelBanks()

    def __init__(
        self,
        weight_shape: tuple[int, ...],
        out_count: int,
        bank_kind: tuple[object, ...],
        options: SharedOptions,
    ) -> None:
        super().__init__()
        dtype, device = options["dtype"], options["device"]
        storage = options["param_dtype"] or dtype or torch.get_default_dtype()
        check_options(options, weight_shape, compute_dtype(storage))
        self.out_count = out_count
        self.constant_bias = number(options["constant_bias"])
        self.geometric_alpha = options["alpha"] == "geometric"
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
        self._add_scalars(
            use_alpha=bool(options["alpha"]),
            constant_alpha=options["constant_alpha"],
            epsilon=options["epsilon"],
            learnable_epsilon=options["learnable_epsilon"],
            device=device,
            storage=storage,
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
        self._reset_scalars(alpha_init)

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

    def effective_weight(self, drop: bool = False) -> Tensor:
        """Return the weights of the op: sliced, dropped out, masked and normalised.

        Args:
            drop: Whether to drop weights out.
        """
        if self._bank_key is not None:
            self._KERNEL_BANKS.use(self._bank_key)
        weight = self._filters()
        if drop and self.use_dropconnect:
            weight = F.dropout(weight, self.drop_rate)
        if self.mask is not None or self.weight_normalized:
            # The op rounds to its own dtype. Weights in half precision must not be rounded before.
            weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
        if self.mask is not None:
            weight = weight * self.mask
        if self.weight_normalized:
            weight = weight / (self._filter_norms(weight) + UNIT_NORM_GUARD)
        return weight

    def _filters(self) -> Tensor:
        """Return the weights of the first `out_count` filters."""
        return self.weight[: self.out_count]

    def _filter_norms(self, weight: Tensor) -> Tensor:
        """Return the norm of each filter, in a shape that broadcasts to the weights."""
        norms: Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1)
        return norms.reshape(-1, *[1] * (weight.ndim - 1))

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
        alpha = super().effective_alpha()
        if self.geometric_alpha:
            return (self.out_count / math.log1p(self.out_count)) ** alpha
        return alpha

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
        """Apply the op of the layer; see `_yat`.

        Args:
            op: The torch op.
            eager: The differentiable formula.
            x: Input of the op.
            drop: Whether to drop weights out.
            geometry: The arguments after α.
        """
        weight, bias = self.effective_weight(drop), self.effective_bias()
        return self._yat(op, eager, x, weight, bias, *geometry)

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
