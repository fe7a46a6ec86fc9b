"""YatConv1d, YatConv2d and YatConv3d, the ⵟ layers for signals, images and volumes."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nmn_export.errors import NmnExportError
from nmn_export.layers.base import YatLayer
from nmn_export.layers.folded import FoldedYatConv
from nmn_export.ops import yat_conv

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")

Size = int | Sequence[int]


class YatConv(YatLayer):
    """y = α (⟨p, w⟩ + b)² / (‖p − w‖² + ε) for every patch p and each of `out_channels` filters w.

    Takes the place of a convolution and its activation.

    Args:
        in_channels: C, the channels of the input.
        out_channels: O, the number of filters.
        kernel_size: One number, or one a spatial axis; so for the next three.
        stride: Step from patch to patch.
        padding: A number, or `"same"` (stride 1) or `"valid"`.
        dilation: Step from tap to tap.
        groups: Groups of channels; divides `in_channels` and `out_channels`.
        bias: Learn b.
        constant_bias: Fix b to this number instead.
        softplus_bias: Use softplus of the learned b, which keeps it positive.
        scalar_bias: Learn one b for all filters.
        padding_mode: `"zeros"`, `"reflect"`, `"replicate"` or `"circular"`.
        use_alpha: Learn α (`True`), leave it out (`False`), or scale by (O / ln(1 + O))^α with a
            learned exponent (`"geometric"`).
        constant_alpha: Fix α to this number instead; `True` stands for √2.
        epsilon: ε > 0, or where it starts.
        learnable_epsilon: Learn ε.
        weight_normalized: Divide filters by their norms first.
        use_dropconnect: While training, drop weights at `drop_rate`.
        drop_rate: Probability in [0, 1) of dropping a weight.
        mask: Multiplies the filters; broadcasts to [O, C / groups, *K].
        device: Where to put the parameters.
        dtype: Dtype of the parameters, and the one that inputs are cast to.

    Raises:
        NmnExportError: The options contradict each other.
    """

    rank: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | Literal["same", "valid"] = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        constant_bias: float | None = None,
        softplus_bias: bool = False,
        scalar_bias: bool = False,
        padding_mode: str = "zeros",
        use_alpha: bool | Literal["geometric"] = True,
        constant_alpha: float | bool | None = None,
        epsilon: float = 1e-5,
        learnable_epsilon: bool = False,
        weight_normalized: bool = False,
        use_dropconnect: bool = False,
        drop_rate: float = 0.0,
        mask: Tensor | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise NmnExportError(
                "groups must divide in_channels and out_channels",
                got=f"groups={groups}, in_channels={in_channels}, out_channels={out_channels}",
                fix="Choose a common divisor.",
            )
        if padding_mode not in PADDING_MODES:
            raise NmnExportError(
                "padding_mode must be one of " + ", ".join(PADDING_MODES),
                got=repr(padding_mode),
                fix="Choose one of them.",
            )
        self.rank = type(self).rank
        kernel = self._per_axis("kernel_size", kernel_size, 1)
        super().__init__(
            (out_channels, in_channels // groups, *kernel),
            bias=bias,
            constant_bias=constant_bias,
            softplus_bias=softplus_bias,
            scalar_bias=scalar_bias,
            alpha=use_alpha,
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
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel
        self.stride = self._per_axis("stride", stride, 1)
        self.dilation = self._per_axis("dilation", dilation, 1)
        self.groups = groups
        self.padding_mode = padding_mode
        self.pads = self._resolve_padding(padding)

    def forward(self, x: Tensor, deterministic: bool | None = None) -> Tensor:
        """Map [B, C, *S] to [B, O, *S'], in the dtype of the layer or else of the input.

        Args:
            x: Input of any floating dtype.
            deterministic: Whether to keep every weight; by default, when not training.

        Raises:
            NmnExportError: The input has another rank or channel count, or is not floating-point.
        """
        x = self._check_input(x, self.rank + 2, 1, self.in_channels)
        drop = self.training if deterministic is None else not deterministic
        padder, pads = self._padding()
        return self._product(
            torch.ops.nmn.yat_conv,
            yat_conv,
            x if padder is None else padder(x),
            drop and self.training,
            self.stride,
            pads,
            self.dilation,
            self.groups,
        )

    def fold(self) -> FoldedYatConv:
        """Return the layer as inference needs it: one op, its parameters computed once."""
        padder, pads = self._padding()
        return FoldedYatConv(
            self,
            padder=padder,
            strides=self.stride,
            pads=pads,
            dilations=self.dilation,
            group=self.groups,
        )

    def extra_repr(self) -> str:
        """Say what the printed network shows of this layer."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, pads={self.pads}, epsilon={self.epsilon}"
        )

    def _per_axis(self, name: str, value: Size, least: int) -> tuple[int, ...]:
        values = (value,) * self.rank if isinstance(value, int) else tuple(value)
        if len(values) != self.rank:
            raise NmnExportError(
                f"{type(self).__name__} takes one number or {self.rank} a size",
                got=str(value),
                fix=f"Give one number for each of the {self.rank} spatial axes.",
            )
        if min(values) < least:
            raise NmnExportError(
                f"{name} must be at least {least}", got=str(value), fix="Use a larger one."
            )
        return values

    def _resolve_padding(self, padding: Size | str) -> tuple[int, ...]:
        """Return how much to pad before every axis, then after every axis."""
        if padding == "valid":
            return (0,) * (2 * self.rank)
        if padding == "same":
            if any(s != 1 for s in self.stride):
                raise NmnExportError(
                    "padding='same' needs stride 1", got=self.stride, fix="Pad with numbers."
                )
            spare = [d * (k - 1) for k, d in zip(self.kernel_size, self.dilation, strict=True)]
            return (*(s // 2 for s in spare), *(s - s // 2 for s in spare))
        if isinstance(padding, str):
            raise NmnExportError(
                "padding must be a number, 'same' or 'valid'",
                got=repr(padding),
                fix="Use one of them.",
            )
        return self._per_axis("padding", padding, 0) * 2

    def _padding(self) -> "tuple[nn.Module | None, tuple[int, ...]]":
        """Split padding into a module that is not the op's business, and the op's own zeros."""
        if self.padding_mode == "zeros" or not any(self.pads):
            return None, self.pads
        return Pad(self.pads, self.padding_mode), (0,) * (2 * self.rank)


class Pad(nn.Module):
    """Pads the spatial axes with what is in the input.

    Args:
        pads: How much before every axis, then after every axis.
        mode: `"reflect"`, `"replicate"` or `"circular"`.
    """

    def __init__(self, pads: tuple[int, ...], mode: str) -> None:
        super().__init__()
        rank = len(pads) // 2
        self.pads = [p for i in reversed(range(rank)) for p in (pads[i], pads[rank + i])]
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        """Pad [B, C, *S]."""
        return F.pad(x, self.pads, mode=self.mode)


class YatConv1d(YatConv):
    """`YatConv` over [B, C, L]."""

    rank = 1


class YatConv2d(YatConv):
    """`YatConv` over [B, C, H, W]."""

    rank = 2


class YatConv3d(YatConv):
    """`YatConv` over [B, C, D, H, W]."""

    rank = 3
