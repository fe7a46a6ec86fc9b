"""`YatConv1D`, `YatConv2D` and `YatConv3D` of `nmn.torch`."""

from collections.abc import Callable
from typing import Any

from nmn_export.adapt.adapter import Adapter
from nmn_export.adapt.yat_layer import (
    PARAMETERS,
    convolution_options,
    refuse_bank_sized_bias,
    refuse_vanishing_filters,
)
from nmn_export.layers import YatConv, YatConv1d, YatConv2d, YatConv3d


def builder(cls: type[YatConv]) -> Callable[[Any], YatConv]:
    """Return what builds a layer of a class of ours from one of nmn's."""

    def build(m: Any) -> YatConv:
        return cls(
            m.in_channels,
            # A tied layer of 0.2.24 keeps the size of its kernel bank in out_channels.
            getattr(m, "_actual_out_channels", m.out_channels),
            m.kernel_size,
            m.stride,
            m.padding,
            m.dilation,
            m.groups,
            **convolution_options(m),
        )

    return build


def _check(layer: YatConv, who: str) -> None:
    refuse_bank_sized_bias(layer, who)
    refuse_vanishing_filters(layer, who)


ADAPTERS = {
    f"YatConv{cls.rank}{d}": Adapter(builder(cls), PARAMETERS, ("mask",), _check)
    for d in "Dd"  # 0.2.7 calls them YatConv1d, …
    for cls in (YatConv1d, YatConv2d, YatConv3d)
}
