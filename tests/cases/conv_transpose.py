"""Cases of YatConvTranspose."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nmn_export.ops.conv_transpose import flipped_filters
from tests.cases.common import NOISE, Bias, Values, generator, make_bias


@dataclass(frozen=True)
class ConvTransposeCase:
    """One call of YatConvTranspose.

    Attributes:
        id: What is special about it.
        size: Spatial size of x; its length is the number of spatial axes.
        channels: C.
        out_channels: O.
        pads: Removed before every axis, then after every axis; none if empty.
        strides: 1 if empty, and so are `dilations`.
        output_padding: 0 if empty.
        bias: None, [O] or [1].
        bias_scale: Typical size of the bias.
        scale: Typical size of x and w.
    """

    id: str
    size: tuple[int, ...] = (4, 5)
    kernel: tuple[int, ...] = (3, 3)
    batch: int = 2
    channels: int = 4
    out_channels: int = 6
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    group: int = 1
    bias: Bias = "vector"
    bias_scale: float = 1.0
    epsilon: float = 1e-5
    alpha: float = 1.0
    values: Values = "normal"
    scale: float = 1.0

    def __post_init__(self) -> None:
        defaults = {"strides": 1, "dilations": 1, "pads": 0, "output_padding": 0}
        for name, default in defaults.items():
            count = len(self.size) * (2 if name == "pads" else 1)
            value = getattr(self, name) or (default,) * count
            assert len(value) == count, f"{self.id}: {name} has {len(value)} entries, not {count}"
            object.__setattr__(self, name, value)

    @property
    def rank(self) -> int:
        """Return the number of spatial axes."""
        return len(self.size)

    def tensors(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor | None]:
        """Draw x, weight and bias with a fixed seed."""
        random = generator(self.id)
        x = self.scale * torch.randn(self.batch, self.channels, *self.size, generator=random)
        filters = (self.channels, self.out_channels // self.group, *self.kernel)
        weight = self.scale * torch.randn(filters, generator=random)
        if self.values == "zeros":
            x[0] = 0
            weight[:, -1] = 0
        elif self.values != "normal":
            noise = NOISE * weight if self.values == "near" else 0
            weight = self._patches_of(x.to(dtype).float()) + noise
        bias = make_bias(self.bias, self.out_channels, self.bias_scale, random, dtype)
        return x.to(dtype), weight.to(dtype), bias

    def arguments(self, dtype: torch.dtype = torch.float32) -> tuple[object, ...]:
        """Return the arguments of `nmn::yat_conv_transpose`."""
        geometry = (self.strides, self.pads, self.dilations, self.output_padding, self.group)
        return (*self.tensors(dtype), self.epsilon, self.alpha, *geometry)

    def _patches_of(self, x: Tensor) -> Tensor:
        """Copy each filter from x with zeros between its pixels, from the middle of an image.

        Strides of 2 or more put zeros into every patch. A filter then equals its patch, zeros
        included.
        """
        per_group, per_filter = self.channels // self.group, self.out_channels // self.group
        size = [(n - 1) * s + 1 for n, s in zip(self.size, self.strides, strict=True)]
        stuffed = x.new_zeros(*x.shape[:2], *size)
        stuffed[(..., *(slice(None, None, s) for s in self.strides))] = x
        extent = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        spare = [p for e in reversed(extent) for p in (0, e)]
        stuffed = F.pad(stuffed, spare)
        patches = []
        for output in range(self.out_channels):
            first = output // per_filter * per_group
            index: list[int | slice] = [output % self.batch, slice(first, first + per_group)]
            for axis in range(self.rank):
                start = output % size[axis]
                index.append(slice(start, start + extent[axis], self.dilations[axis]))
            patches.append(stuffed[tuple(index)])
        # Flipping is its own inverse, with the roles of input and output channels exchanged.
        return flipped_filters(torch.stack(patches), self.group)


CONV_TRANSPOSE_CASES = (
    ConvTransposeCase("plain"),
    ConvTransposeCase("1d", size=(7,), kernel=(3,)),
    ConvTransposeCase("3d", size=(3, 2, 3), kernel=(2, 3, 2), channels=3, out_channels=2),
    ConvTransposeCase(
        "all-sizes-one", size=(1, 1), kernel=(1, 1), batch=1, channels=1, out_channels=1
    ),
    ConvTransposeCase("pointwise", kernel=(1, 1), channels=7, bias="scalar"),
    ConvTransposeCase("upsample", kernel=(4, 4), strides=(2, 2), pads=(1,) * 4, alpha=2**0.5),
    ConvTransposeCase("upsample-odd", kernel=(3, 3), strides=(2, 2), output_padding=(1, 1)),
    ConvTransposeCase("stride-3", kernel=(5, 2), strides=(3, 2), pads=(1, 0, 1, 0)),
    ConvTransposeCase(
        "stride-past-the-kernel", kernel=(2, 1), strides=(4, 3), output_padding=(3, 1)
    ),
    ConvTransposeCase(
        "one-past-a-power-of-two", channels=17, out_channels=33, strides=(2, 1), pads=(1,) * 4
    ),
    ConvTransposeCase("dilations", dilations=(3, 2), pads=(2, 0, 2, 0), bias="none"),
    ConvTransposeCase("dilations-and-strides", dilations=(2, 3), strides=(3, 2), bias="scalar"),
    ConvTransposeCase("asymmetric-pads", strides=(2, 2), pads=(0, 2, 1, 0), epsilon=0.007),
    ConvTransposeCase("group", group=2, strides=(2, 2), pads=(1,) * 4),
    ConvTransposeCase("depthwise", group=4, out_channels=4, bias="none", strides=(2, 2)),
    ConvTransposeCase("depthwise-multiplied", group=4, out_channels=12, strides=(2, 1)),
    ConvTransposeCase(
        "group-1d", size=(6,), kernel=(4,), group=2, strides=(3,), output_padding=(2,), pads=(1, 1)
    ),
    ConvTransposeCase(
        "everything-3d",
        size=(3, 2, 4),
        kernel=(2, 3, 1),
        strides=(2, 1, 3),
        pads=(1, 0, 0, 0, 2, 0),
        dilations=(2, 1, 1),
        output_padding=(1, 0, 2),
        group=2,
        bias="scalar",
        alpha=-0.7,
    ),
    ConvTransposeCase("no-bias", bias="none", alpha=2**0.5, strides=(2, 2)),
    ConvTransposeCase("large-bias", bias_scale=1000.0),
    ConvTransposeCase("alpha-zero", alpha=0.0),
    ConvTransposeCase("alpha-negative", alpha=-1.5, group=2, strides=(1, 2)),
    ConvTransposeCase("near", bias="none", values="near", kernel=(2, 2)),
    ConvTransposeCase("near-strides", values="near", strides=(2, 2), kernel=(4, 3)),
    ConvTransposeCase("near-group", values="near", group=2, strides=(2, 1), dilations=(1, 2)),
    ConvTransposeCase("equal", values="equal", strides=(2, 2)),
    ConvTransposeCase(
        "equal-3d", size=(3, 3, 3), kernel=(2, 2, 2), bias="none", values="equal", group=2
    ),
    ConvTransposeCase("zeros", values="zeros", strides=(2, 2), pads=(1,) * 4),
    ConvTransposeCase("large", bias="none", scale=3000.0),
    ConvTransposeCase("tiny", bias="none", scale=1e-3),
    ConvTransposeCase("vanishing", bias="none", scale=1e-15),
)


def conv_transpose_case(case_id: str) -> ConvTransposeCase:
    """Return one case of the table."""
    return next(case for case in CONV_TRANSPOSE_CASES if case.id == case_id)
