"""YatConv1d, YatConv2d and YatConv3d, the ⵟ layers for signals, images and volumes."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nmn_export.errors import OptionError
from nmn_export.layers.folded import FoldedYatConv
from nmn_export.layers.options import SharedOptions
from nmn_export.layers.spatial import Size, SpatialLayer
from nmn_export.ops import yat_conv


class YatConv(SpatialLayer):
    """y = α (⟨p, w⟩ + b)² / (‖p − w‖² + ε) for every patch p and each of `out_channels` filters w.

    Replaces a convolution and its activation.

    Args:
        in_channels: C, the channels of the input.
        out_channels: O, the number of filters.
        kernel_size: One number, or one per spatial axis.
        stride: Pixels from one patch to the next: one number, or one per spatial axis.
        padding: Pixels on both sides: one number or one per spatial axis, `"same"` (with stride 1)
            or `"valid"`.
        dilation: Pixels from one tap to the next: one number, or one per spatial axis.
        groups: Groups of channels; divides `in_channels` and `out_channels`.
        bias: Learn b.
        constant_bias: Fix b to this number instead. `False` stands for no bias at all.
        softplus_bias: Use softplus of the learned b, which keeps it positive.
        scalar_bias: Learn one b for all filters.
        padding_mode: `"zeros"`, `"reflect"`, `"replicate"` or `"circular"`.
        use_alpha: Learn α (`True`), leave it out (`False`), or scale by (O / ln(1 + O))^α with a
            learned exponent (`"geometric"`).
        constant_alpha: Fix α to this number instead; `True` stands for √2.
        use_dropconnect: In training, drop weights out at `drop_rate`.
        mask: Multiplies the filters; broadcasts to [O, C / groups, *K].
        epsilon: ε > 0, or where a learned ε starts.
        learnable_epsilon: Learn ε.
        drop_rate: Probability in [0, 1) of dropping a weight out.
        weight_normalized: Divide filters by their norms first.
        tie_kernel_bank: Share the filters with the other layers of a kernel bank.
        kernel_bank_size: Filters of the bank; by default as many as its layers need.
        kernel_bank_id: Name of the bank.
        device: Device of the parameters.
        dtype: Dtype that inputs and parameters are cast to; by default that of the input.
        param_dtype: Dtype that the parameters are stored in; by default `dtype`, or float32.
        lazy: Do not train the filters; all other parameters are trained.
        freeze_kernel: The same as `lazy`.

    Raises:
        OptionError: An option has a value that it cannot have, or options contradict each other.
    """

    padding_modes = ("zeros", "reflect", "replicate", "circular")

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
        constant_bias: float | bool | None = None,
        softplus_bias: bool = False,
        scalar_bias: bool = False,
        padding_mode: str = "zeros",
        use_alpha: bool | Literal["geometric"] = True,
        constant_alpha: float | bool | None = None,
        use_dropconnect: bool = False,
        mask: Tensor | None = None,
        epsilon: float = 1e-5,
        learnable_epsilon: bool = False,
        drop_rate: float = 0.0,
        weight_normalized: bool = False,
        tie_kernel_bank: bool = False,
        kernel_bank_size: int | None = None,
        kernel_bank_id: str = "default",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        param_dtype: torch.dtype | None = None,
        *,
        lazy: bool = False,
        freeze_kernel: bool = False,
    ) -> None:
        options = SharedOptions(
            bias=bias and constant_bias is not False,
            constant_bias=constant_bias,
            softplus_bias=softplus_bias,
            scalar_bias=scalar_bias,
            alpha=use_alpha,
            constant_alpha=constant_alpha,
            epsilon=epsilon,
            learnable_epsilon=learnable_epsilon,
            weight_normalized=weight_normalized,
            positive_init=False,
            lazy=lazy or freeze_kernel,
            tie_kernel_bank=tie_kernel_bank,
            kernel_bank_size=kernel_bank_size,
            kernel_bank_id=kernel_bank_id,
            kernel_init=None,
            bias_init=None,
            alpha_init=None,
            use_dropconnect=use_dropconnect,
            drop_rate=drop_rate,
            mask=mask,
            device=device,
            dtype=dtype,
            param_dtype=param_dtype,
        )
        super().__init__(
            in_channels, out_channels, kernel_size, stride, dilation, groups, padding_mode, options
        )
        self.padding: str | tuple[int, ...] = (
            padding if isinstance(padding, str) else self._per_axis("padding", padding, 0)
        )
        self.pads = self._resolve_padding(padding)

    def forward(self, input: Tensor, deterministic: bool | None = None) -> Tensor:
        """Map [B, C, *S] to [B, O, *S'], in the dtype of the layer or else of the input.

        One image [C, *S] is mapped to [O, *S'], as in PyTorch's own convolutions.

        Args:
            input: Tensor of any floating dtype. Its name is that of PyTorch's own convolutions.
            deterministic: Whether to keep all weights, even in training. Weights are always kept in
                eval mode.

        Raises:
            NmnExportError: The input has another rank or channel count, or is not floating-point.
        """
        if input.ndim == self.rank + 1:
            return self.forward(input.unsqueeze(0), deterministic).squeeze(0)
        x = self._check_input(input, self.rank + 2, 1, self.in_channels)
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
        """Return the layer as inference needs it: one op, with its parameters computed once."""
        padder, pads = self._padding()
        return FoldedYatConv(
            self.folded_parameters(),
            padder=padder,
            strides=self.stride,
            pads=pads,
            dilations=self.dilation,
            group=self.groups,
        )

    def extra_repr(self) -> str:
        """Return the options of the layer, as PyTorch's own layers print theirs."""
        return self._geometry_repr({"padding": self.padding})

    def _resolve_padding(self, padding: Size | str) -> tuple[int, ...]:
        """Return the pixels to pad before each axis, then those after each axis."""
        if padding == "valid":
            return (0,) * (2 * self.rank)
        if padding == "same":
            if any(s != 1 for s in self.stride):
                raise OptionError(
                    "padding='same' needs stride 1", got=self.stride, fix="Pad with numbers."
                )
            spare = [d * (k - 1) for k, d in zip(self.kernel_size, self.dilation, strict=True)]
            return (*(s // 2 for s in spare), *(s - s // 2 for s in spare))
        if isinstance(padding, str):
            raise OptionError(
                "padding must be a number, 'same' or 'valid'",
                got=repr(padding),
                fix="Use one of them.",
            )
        return self._per_axis("padding", padding, 0) * 2

    def _padding(self) -> "tuple[nn.Module | None, tuple[int, ...]]":
        """Split padding into a module, for modes that the op does not support, and zeros."""
        if self.padding_mode == "zeros" or not any(self.pads):
            return None, self.pads
        return Pad(self.pads, self.padding_mode), (0,) * (2 * self.rank)


class Pad(nn.Module):
    """Pads the spatial axes with values of the input.

    Args:
        pads: Pixels before each axis, then pixels after each axis.
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
