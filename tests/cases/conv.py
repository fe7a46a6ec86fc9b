"""Cases of YatConv."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tests.cases.common import NOISE, Bias, Values, generator, make_bias


@dataclass(frozen=True)
class ConvCase:
    """One call of YatConv.

    Attributes:
        id: What is special about it.
        size: Spatial size of x; its length is the number of spatial axes.
        channels: C.
        out_channels: O.
        pads: Before every axis, then after every axis; none if empty.
        strides: 1 if empty, and so are `dilations`.
        bias: None, [O] or [1].
        bias_scale: Typical size of the bias.
        scale: Typical size of x and w.
    """

    id: str
    size: tuple[int, ...] = (6, 7)
    kernel: tuple[int, ...] = (3, 3)
    batch: int = 2
    channels: int = 4
    out_channels: int = 6
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    bias: Bias = "vector"
    bias_scale: float = 1.0
    epsilon: float = 1e-5
    alpha: float = 1.0
    values: Values = "normal"
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name, default in (("strides", 1), ("dilations", 1), ("pads", 0)):
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
        filters = (self.out_channels, self.channels // self.group, *self.kernel)
        weight = self.scale * torch.randn(filters, generator=random)
        if self.values == "zeros":
            x[0] = 0
            weight[-1] = 0
        elif self.values != "normal":
            noise = NOISE * weight if self.values == "near" else 0
            weight = self._patches_of(x.to(dtype).float()) + noise
        bias = make_bias(self.bias, self.out_channels, self.bias_scale, random, dtype)
        return x.to(dtype), weight.to(dtype), bias

    def arguments(self, dtype: torch.dtype = torch.float32) -> tuple[object, ...]:
        """Return the arguments of `nmn::yat_conv`."""
        geometry = (self.strides, self.pads, self.dilations, self.group)
        return (*self.tensors(dtype), self.epsilon, self.alpha, *geometry)

    def _patches_of(self, x: Tensor) -> Tensor:
        """Copy each filter from x, at an output position near the middle."""
        per_group = self.channels // self.group
        filters = []
        for output in range(self.out_channels):
            first = output * self.group // self.out_channels * per_group
            index: list[int | slice] = [output % self.batch, slice(first, first + per_group)]
            for axis in range(self.rank):
                stride, pad = self.strides[axis], self.pads[axis]
                extent = (self.kernel[axis] - 1) * self.dilations[axis] + 1
                inside = -(-pad // stride)  # the first output whose patch has no padding
                last = (self.size[axis] + pad - extent) // stride
                assert inside <= last, f"{self.id}: no patch without padding along axis {axis}"
                start = (inside + output % (last - inside + 1)) * stride - pad
                index.append(slice(start, start + extent, self.dilations[axis]))
            filters.append(x[tuple(index)])
        return torch.stack(filters)


CONV_CASES = (
    ConvCase("plain"),
    ConvCase("1d", size=(9,), kernel=(3,)),
    ConvCase("3d", size=(4, 5, 3), kernel=(2, 3, 2), channels=3, out_channels=2),
    ConvCase("all-sizes-one", size=(1, 1), kernel=(1, 1), batch=1, channels=1, out_channels=1),
    ConvCase("pointwise", kernel=(1, 1), channels=7, bias="scalar"),
    ConvCase("one-past-a-power-of-two", size=(9, 5), channels=17, out_channels=33, pads=(1,) * 4),
    ConvCase("kernel-of-whole-input", size=(3, 4), kernel=(3, 4), bias="none"),
    ConvCase("even-kernel-same", kernel=(2, 4), pads=(0, 1, 1, 2)),
    ConvCase("strides", strides=(2, 3), pads=(1, 1, 1, 1), alpha=2**0.5),
    ConvCase("strides-past-the-kernel", size=(11, 9), kernel=(2, 1), strides=(4, 3)),
    ConvCase("dilations", size=(9, 8), dilations=(3, 2), pads=(2, 0, 2, 0), bias="none"),
    ConvCase("asymmetric-pads", pads=(0, 2, 1, 3), epsilon=0.007),
    ConvCase("pads-beyond-the-kernel", size=(3, 2), kernel=(2, 2), pads=(4, 2, 3, 5)),
    ConvCase("group", group=2, pads=(1,) * 4),
    ConvCase("depthwise", group=4, out_channels=4, bias="none", pads=(1,) * 4),
    ConvCase("depthwise-multiplied", group=4, out_channels=12, strides=(2, 1)),
    ConvCase("group-1d", size=(10,), kernel=(4,), group=2, dilations=(2,), pads=(3, 0)),
    ConvCase(
        "everything-3d",
        size=(5, 6, 4),
        kernel=(2, 3, 1),
        channels=4,
        out_channels=6,
        strides=(2, 1, 3),
        pads=(1, 0, 2, 0, 2, 1),
        dilations=(2, 1, 1),
        group=2,
        bias="scalar",
        alpha=-0.7,
    ),
    ConvCase("no-bias", bias="none", alpha=2**0.5, pads=(1,) * 4),
    ConvCase("large-bias", bias_scale=1000.0),
    ConvCase("alpha-zero", alpha=0.0),
    ConvCase("alpha-negative", alpha=-1.5, group=2),
    ConvCase("near", size=(8, 8), bias="none", values="near", pads=(1,) * 4),
    ConvCase("near-group", values="near", group=2, strides=(2, 1), dilations=(1, 2)),
    ConvCase("near-alpha-negative", size=(12,), kernel=(5,), values="near", alpha=-2.0),
    ConvCase("equal", values="equal", pads=(1,) * 4),
    ConvCase("equal-3d", size=(4, 3, 3), kernel=(2, 2, 2), bias="none", values="equal", group=2),
    ConvCase("zeros", values="zeros", pads=(1,) * 4),
    ConvCase("large", bias="none", scale=3000.0, pads=(1,) * 4),
    ConvCase("tiny", bias="none", scale=1e-3),
    ConvCase("vanishing", bias="none", scale=1e-15),
)


def conv_case(case_id: str) -> ConvCase:
    """Return one case of the table."""
    return next(case for case in CONV_CASES if case.id == case_id)
