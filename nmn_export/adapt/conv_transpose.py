"""`YatConvTranspose1D`, `YatConvTranspose2D` and `YatConvTranspose3D` of `nmn.torch`."""

from collections.abc import Callable
from typing import Any

from nmn_export.adapt.adapter import Adapter
from nmn_export.adapt.yat_layer import PARAMETERS, convolution_options
from nmn_export.layers import (
    YatConvTranspose,
    YatConvTranspose1d,
    YatConvTranspose2d,
    YatConvTranspose3d,
)


def _builder(cls: type[YatConvTranspose]) -> Callable[[Any], YatConvTranspose]:
    def build(m: Any) -> YatConvTranspose:
        return cls(
            m.in_channels,
            m.out_channels,
            m.kernel_size,
            m.stride,
            m.padding,
            m.output_padding,
            m.groups,
            dilation=m.dilation,
            **convolution_options(m),
        )

    return build


ADAPTERS = {
    f"YatConvTranspose{cls.rank}D": Adapter(_builder(cls), PARAMETERS, ("mask",))
    for cls in (YatConvTranspose1d, YatConvTranspose2d, YatConvTranspose3d)
}
