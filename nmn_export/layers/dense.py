"""YatDense, the ⵟ layer for vectors."""

from typing import Literal

import torch
from torch import Tensor

from nmn_export.layers.base import YatLayer
from nmn_export.layers.folded import FoldedYatDense
from nmn_export.layers.options import Initializer, SharedOptions
from nmn_export.ops import yat_dense


class YatDense(YatLayer):
    """y = α (⟨x, w⟩ + b)² / (‖x − w‖² + ε) for each of `out_features` prototypes w.

    Replaces a linear layer and its activation. `YatNMN` and `NMNLayer` are other names for it.

    Args:
        in_features: K, the size of the last axis of the input.
        out_features: N, the number of prototypes.
        bias: Learn b.
        constant_bias: Fix b to this number instead.
        softplus_bias: Use softplus of the learned b, which keeps it positive.
        scalar_bias: Learn one b for all prototypes.
        alpha: Learn α (`True`), leave it out (`False`), or scale by (N / ln(1 + N))^α with a
            learned exponent (`"geometric"`).
        constant_alpha: Fix α to this number instead; `True` stands for √2.
        dtype: Dtype that inputs and parameters are cast to; by default that of the input.
        param_dtype: Dtype that the parameters are stored in; by default `dtype`, or float32.
        epsilon: ε > 0, or where a learned ε starts.
        learnable_epsilon: Learn ε.
        spherical: Divide inputs and prototypes by their norms first.
        positive_init: Start from the absolute values of the initial weights.
        weight_normalized: Divide prototypes by their norms first.
        lazy: Do not train the weights; all other parameters are trained.
        freeze_kernel: The same as `lazy`.
        tie_kernel_bank: Share the weights with the other layers of a kernel bank.
        kernel_bank_size: Rows of the bank; by default as many as its layers need.
        kernel_bank_id: Name of the bank.
        kernel_init: Initialises the weights in place.
        bias_init: Initialises the bias in place.
        alpha_init: Initialises a learned α in place.
        device: Device of the parameters.
        use_dropconnect: In training, drop weights out at `drop_rate`.
        drop_rate: Probability in [0, 1) of dropping a weight out.
        mask: Multiplies the weights; broadcasts to [N, K].

    Raises:
        OptionError: An option has a value that it cannot have.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        constant_bias: float | bool | None = None,
        softplus_bias: bool = False,
        scalar_bias: bool = False,
        alpha: bool | Literal["geometric"] = True,
        constant_alpha: float | bool | None = None,
        dtype: torch.dtype | None = None,
        param_dtype: torch.dtype | None = None,
        epsilon: float = 1e-5,
        learnable_epsilon: bool = False,
        spherical: bool = False,
        positive_init: bool = False,
        weight_normalized: bool = False,
        lazy: bool = False,
        freeze_kernel: bool = False,
        tie_kernel_bank: bool = False,
        kernel_bank_size: int | None = None,
        kernel_bank_id: str = "default",
        kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        alpha_init: Initializer | None = None,
        device: torch.device | str | None = None,
        *,
        use_dropconnect: bool = False,
        drop_rate: float = 0.0,
        mask: Tensor | None = None,
    ) -> None:
        options = SharedOptions(
            bias=bias,
            constant_bias=constant_bias,
            softplus_bias=softplus_bias,
            scalar_bias=scalar_bias,
            alpha=alpha,
            constant_alpha=constant_alpha,
            epsilon=epsilon,
            learnable_epsilon=learnable_epsilon,
            weight_normalized=weight_normalized,
            positive_init=positive_init,
            lazy=lazy or freeze_kernel,
            tie_kernel_bank=tie_kernel_bank,
            kernel_bank_size=kernel_bank_size,
            kernel_bank_id=kernel_bank_id,
            kernel_init=kernel_init,
            bias_init=bias_init,
            alpha_init=alpha_init,
            use_dropconnect=use_dropconnect,
            drop_rate=drop_rate,
            mask=mask,
            device=device,
            dtype=dtype,
            param_dtype=param_dtype,
        )
        shape, kind = (out_features, in_features), (in_features, kernel_init, positive_init)
        super().__init__(shape, out_features, kind, options)
        self.in_features = in_features
        self.out_features = out_features
        self.spherical = spherical

    def forward(self, x: Tensor, deterministic: bool | None = None) -> Tensor:
        """Map [..., K] to [..., N], in the dtype of the layer or else of the input.

        Args:
            x: Input of any floating dtype.
            deterministic: Whether to keep all weights, even in training. Weights are always kept in
                eval mode.

        Raises:
            NmnExportError: The input has another size or is not of a floating dtype.
        """
        x = self._check_input(x, None, -1, self.in_features)
        drop = self.training if deterministic is None else not deterministic
        return self._product(
            torch.ops.nmn.yat_dense, yat_dense, x, drop and self.training, self.spherical
        )

    def fold(self) -> FoldedYatDense:
        """Return the layer as inference needs it: one op, with its parameters computed once."""
        return FoldedYatDense(self.folded_parameters(), spherical=self.spherical)

    def extra_repr(self) -> str:
        """Return the options of the layer, as PyTorch's own layers print theirs."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        spherical = ", spherical=True" * self.spherical
        return f"{sizes}, bias={self.use_bias}{self._shared_repr()}{spherical}"
