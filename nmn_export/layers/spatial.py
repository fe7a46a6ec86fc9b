"""What both kinds of convolutional layers have in common: channels, filters, numbers per axis."""

from collections.abc import Mapping, Sequence

import torch

from nmn_export.errors import OptionError
from nmn_export.layers.base import YatLayer
from nmn_export.layers.options import SharedOptions

Size = int | Sequence[int]
"""One number for all spatial axes, or one per axis."""


class SpatialLayer(YatLayer):
    """Base of the ⵟ layers for signals, images and volumes.

    Attributes:
        rank: Number of spatial axes.
        transposed: Whether the weights are [C, O / groups, *K], and not [O, C / groups, *K].
        padding_modes: Values of `padding_mode` that the layer takes.
    """

    rank: int
    transposed = False
    padding_modes: tuple[str, ...] = ("zeros",)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size,
        dilation: Size,
        groups: int,
        padding_mode: str,
        options: SharedOptions,
    ) -> None:
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise OptionError(
                "groups must divide in_channels and out_channels",
                got=f"groups={groups}, in_channels={in_channels}, out_channels={out_channels}",
                fix="Choose a common divisor.",
            )
        if padding_mode not in self.padding_modes:
            one_of = "one of " if len(self.padding_modes) > 1 else ""
            raise OptionError(
                f"padding_mode must be {one_of}{', '.join(self.padding_modes)}",
                got=repr(padding_mode),
                fix="Choose one of them." if one_of else "Leave it out.",
            )
        kernel = self._per_axis("kernel_size", kernel_size, 1)
        rows, columns = out_channels, in_channels
        if self.transposed:
            rows, columns = columns, rows
        shape = (rows, columns // groups, *kernel)
        super().__init__(shape, out_channels, (in_channels, kernel, groups), options)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel
        self.stride = self._per_axis("stride", stride, 1)
        self.dilation = self._per_axis("dilation", dilation, 1)
        self.groups = groups
        self.padding_mode = padding_mode

    @property
    def compute_dtype(self) -> torch.dtype | None:
        """`dtype` under the name that upstream's convolutions give it."""
        return self.dtype

    def _per_axis(self, name: str, value: Size, least: int) -> tuple[int, ...]:
        values = (value,) * self.rank if isinstance(value, int) else tuple(value)
        if len(values) != self.rank:
            raise OptionError(
                f"{name} must be one number, or {self.rank} numbers for {type(self).__name__}",
                got=str(value),
                fix=f"Give one number per spatial axis: {self.rank}.",
            )
        if min(values) < least:
            raise OptionError(
                f"{name} must be at least {least}", got=str(value), fix="Use a larger one."
            )
        return values

    def _geometry_repr(self, padding: Mapping[str, object]) -> str:
        """Return the options of the layer, as PyTorch's own layers print theirs.

        Args:
            padding: The options between `stride` and `dilation`, which are shown unless zero.
        """
        shown = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        shown += f", stride={self.stride}"
        others = {
            **{name: (value, (0,) * self.rank) for name, value in padding.items()},
            "dilation": (self.dilation, (1,) * self.rank),
            "groups": (self.groups, 1),
            "bias": (self.use_bias, True),
            "padding_mode": (self.padding_mode, "zeros"),
        }
        for name, (value, default) in others.items():
            if value != default:
                shown += f", {name}={value if name != 'padding_mode' else repr(value)}"
        return shown + self._shared_repr()
