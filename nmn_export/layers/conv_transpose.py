"""YatConvTranspose1d, YatConvTranspose2d and YatConvTranspose3d, the ⵟ layers that upsample."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from nmn_export.errors import OptionError
from nmn_export.layers.folded import FoldedYatConvTranspose
from nmn_export.layers.options import SharedOptions
from nmn_export.layers.output_size import output_padding_for
from nmn_export.layers.spatial import Size, SpatialLayer
from nmn_export.ops import yat_conv_transpose


class YatConvTranspose(SpatialLayer):
    """y = α (⟨p, w⟩ + b)² / (‖p − w‖² + ε) for every transposed patch p and each filter w.

    Replaces a transposed convolution and its activation. A transposed patch is a patch of the input
    with `stride − 1` zeros between its pixels. ‖w‖² is always that of the whole filter.

    Args:
        in_channels: C, the channels of the input.
        out_channels: O, the number of filters.
        kernel_size: One number, or one per spatial axis.
        stride: Pixels of the output per pixel of the input: one number, or one per spatial axis.
        padding: Pixels to remove on both sides of the output: one number, or one per spatial axis.
        output_padding: Pixels to add after each spatial axis of the output: one number or one per
            axis, smaller than the stride or the dilation.
        groups: Groups of channels; divides `in_channels` and `out_channels`.
        bias: Learn b.
        constant_bias: Fix b to this number instead. `False` stands for no bias at all.
        softplus_bias: Use softplus of the learned b, which keeps it positive.
        scalar_bias: Learn one b for all filters.
        dilation: Pixels from one tap to the next: one number, or one per spatial axis.
        padding_mode: `"zeros"`.
        use_alpha: Learn α (`True`), leave it out (`False`), or scale by (O / ln(1 + O))^α with a
            learned exponent (`"geometric"`).
        constant_alpha: Fix α to this number instead; `True` stands for √2.
        use_dropconnect: In training, drop weights out at `drop_rate`.
        mask: Multiplies the filters; broadcasts to [C, O / groups, *K].
        epsilon: ε > 0, or where a learned ε starts.
        learnable_epsilon: Learn ε.
        drop_rate: Probability in [0, 1) of dropping a weight out.
        device: Device of the parameters.
        dtype: Dtype that inputs and parameters are cast to; by default that of the input.
        param_dtype: Dtype that the parameters are stored in; by default `dtype`, or float32.
        weight_normalized: Divide filters by their norms first.
        lazy: Do not train the filters; all other parameters are trained.
        freeze_kernel: The same as `lazy`.

    Raises:
        OptionError: An option has a value that it cannot have, or options contradict each other.
    """

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        constant_bias: float | bool | None = None,
        softplus_bias: bool = False,
        scalar_bias: bool = False,
        dilation: Size = 1,
        padding_mode: str = "zeros",
        use_alpha: bool | Literal["geometric"] = True,
        constant_alpha: float | bool | None = None,
        use_dropconnect: bool = False,
        mask: Tensor | None = None,
        epsilon: float = 1e-5,
        learnable_epsilon: bool = False,
        drop_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        param_dtype: torch.dtype | None = None,
        *,
        weight_normalized: bool = False,
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
            tie_kernel_bank=False,
            kernel_bank_size=None,
            kernel_bank_id="default",
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
        self.padding = self._per_axis("padding", padding, 0)
        self.pads = self.padding * 2
        self.output_padding = self._per_axis("output_padding", output_padding, 0)
        limits = [max(s, d) for s, d in zip(self.stride, self.dilation, strict=True)]
        if any(p >= most for p, most in zip(self.output_padding, limits, strict=True)):
            raise OptionError(
                "output_padding must be smaller than the stride or the dilation",
                got=f"{self.output_padding} with stride {self.stride}, dilation {self.dilation}",
                fix="Use a smaller one.",
            )

    def forward(
        self,
        input: Tensor,
        output_size: Sequence[int] | None = None,
        deterministic: bool | None = None,
    ) -> Tensor:
        """Map [B, C, *S] to [B, O, *S'], in the dtype of the layer or else of the input.

        One image [C, *S] is mapped to [O, *S'], as in PyTorch's own convolutions.

        Args:
            input: Tensor of any floating dtype. Its name is that of PyTorch's own convolutions.
            output_size: S', perhaps after B and O. It replaces `output_padding`, because a stride
                leads to several sizes.
            deterministic: Whether to keep all weights, even in training. Weights are always kept in
                eval mode.

        Raises:
            NmnExportError: The input has another rank or channel count, or is not floating-point.
            OptionError: The stride does not lead to this output size.
        """
        if input.ndim == self.rank + 1:
            return self.forward(input.unsqueeze(0), output_size, deterministic).squeeze(0)
        x = self._check_input(input, self.rank + 2, 1, self.in_channels)
        drop = self.training if deterministic is None else not deterministic
        output_padding = self.output_padding
        if output_size is not None:
            geometry = (self.kernel_size, self.stride, self.pads, self.dilation)
            output_padding = output_padding_for(output_size, x.shape, *geometry)
        return self._product(
            torch.ops.nmn.yat_conv_transpose,
            yat_conv_transpose,
            x,
            drop and self.training,
            self.stride,
            self.pads,
            self.dilation,
            output_padding,
            self.groups,
        )

    def fold(self) -> FoldedYatConvTranspose:
        """Return the layer as inference needs it: one op, with its parameters computed once."""
        return FoldedYatConvTranspose(
            self.folded_parameters(),
            strides=self.stride,
            pads=self.pads,
            dilations=self.dilation,
            output_padding=self.output_padding,
            group=self.groups,
        )

    def extra_repr(self) -> str:
        """Return the options of the layer, as PyTorch's own layers print theirs."""
        padding = {"padding": self.padding, "output_padding": self.output_padding}
        return self._geometry_repr(padding)

    def _filters(self) -> Tensor:
        return self.weight[:, : self.out_count // self.groups]

    def _filter_norms(self, weight: Tensor) -> Tensor:
        """Return the norm of each filter, [C / groups, *K], in the shape of the weights."""
        grouped = (self.groups, self.in_channels // self.groups, *weight.shape[1:])
        by_group = weight.reshape(grouped)
        taps = (1, *range(3, len(grouped)))
        norms: Tensor = torch.linalg.vector_norm(by_group, dim=taps, keepdim=True)
        return norms.expand(grouped).reshape(weight.shape)


class YatConvTranspose1d(YatConvTranspose):
    """`YatConvTranspose` over [B, C, L]."""

    rank = 1


class YatConvTranspose2d(YatConvTranspose):
    """`YatConvTranspose` over [B, C, H, W]."""

    rank = 2


class YatConvTranspose3d(YatConvTranspose):
    """`YatConvTranspose` over [B, C, D, H, W]."""

    rank = 3
