"""YatDense, the ⵟ layer for vectors."""

from typing import Literal

import torch
from torch import Tensor

from nmn_export.layers.base import YatLayer
from nmn_export.layers.folded import FoldedYatDense
from nmn_export.ops import yat_dense


class YatDense(YatLayer):
    """y = α (⟨x, w⟩ + b)² / (‖x − w‖² + ε) for each of `out_features` prototypes w.

    Takes the place of a linear layer and its activation. Known as `YatNMN` and `NMNLayer` too.

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
        epsilon: ε > 0, or where it starts.
        learnable_epsilon: Learn ε.
        spherical: Divide inputs and prototypes by their norms first.
        weight_normalized: Divide prototypes by their norms first.
        use_dropconnect: While training, drop weights at `drop_rate`.
        drop_rate: Probability in [0, 1) of dropping a weight.
        mask: Multiplies the weights; broadcasts to [N, K].
        device: Where to put the parameters.
        dtype: Dtype of the parameters, and the one that inputs are cast to.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        constant_bias: float | None = None,
        softplus_bias: bool = False,
        scalar_bias: bool = False,
        alpha: bool | Literal["geometric"] = True,
        constant_alpha: float | bool | None = None,
        epsilon: float = 1e-5,
        learnable_epsilon: bool = False,
        spherical: bool = False,
        weight_normalized: bool = False,
        use_dropconnect: bool = False,
        drop_rate: float = 0.0,
        mask: Tensor | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            (out_features, in_features),
            bias=bias,
            constant_bias=constant_bias,
            softplus_bias=softplus_bias,
            scalar_bias=scalar_bias,
            alpha=alpha,
            constant_alpha=constant_alpha,
            epsilon=epsilon,
            learnable_epsilon=learnable_epsilon,
            weight_normalized=weight_normalized,
            use_dropconnect=use_dropconnect,
            drop_rate=drop_rate,
            mask=mask,
            device=device,
            dtype=dtype,
        )
        self.in_features = in_features
        self.out_features = out_features
        self.spherical = spherical

    def forward(self, x: Tensor, deterministic: bool | None = None) -> Tensor:
        """Map [..., K] to [..., N], in the dtype of the layer or else of the input.

        Args:
            x: Input of any floating dtype.
            deterministic: Whether to keep every weight; by default, when not training.

        Raises:
            NmnExportError: The input has another size or is not of a floating dtype.
        """
        x = self._check_input(x, None, -1, self.in_features)
        drop = self.training if deterministic is None else not deterministic
        return self._product(
            torch.ops.nmn.yat_dense, yat_dense, x, drop and self.training, self.spherical
        )

    def fold(self) -> FoldedYatDense:
        """Return the layer as inference needs it: one op, its parameters computed once."""
        return FoldedYatDense(self, spherical=self.spherical)

    def extra_repr(self) -> str:
        """Say what the printed network shows of this layer."""
        return f"{self.in_features}, {self.out_features}, epsilon={self.epsilon}"
