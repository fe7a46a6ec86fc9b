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


def builder(cls: type[YatConvTranspose]) -> Callable[[Any], YatConvTranspose]:
    """Return what builds a layer of a class of ours from one of nmn's."""

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
    f"YatConvTranspose{cls.rank}{d}": Adapter(builder(cls), PARAMETERS, ("mask",))
    for d in "Dd"  # 0.2.7 calls them YatConvTranspose1d, …
    for cls in (YatConvTranspose1d, YatConvTranspose2d, YatConvTranspose3d)
}
