"""`YatConv1D`, `YatConv2D` and `YatConv3D` of `nmn.torch`."""

from collections.abc import Callable
from typing import Any

from nmn_export.adapt.adapter import Adapter
from nmn_export.adapt.yat_layer import (
    PARAMETERS,
    refuse_bank_sized_bias,
    refuse_vanishing_filters,
    shared_options,
)
from nmn_export.layers import YatConv, YatConv1d, YatConv2d, YatConv3d


def _builder(cls: type[YatConv]) -> Callable[[Any], YatConv]:
    def build(m: Any) -> YatConv:
        drops = bool(m.use_dropconnect)
        return cls(
            m.in_channels,
            # A tied layer of 0.2.24 keeps the size of its kernel bank in out_channels.
            m._actual_out_channels,
            m.kernel_size,
            m.stride,
            m.padding,
            m.dilation,
            m.groups,
            padding_mode=m.padding_mode,
            use_alpha=m.alpha is not None,
            use_dropconnect=drops,
            drop_rate=m.drop_rate if drops else 0.0,
            mask=m.mask,
            dtype=m.compute_dtype,
            **shared_options(m),
        )

    return build


def _check(layer: YatConv, who: str) -> None:
    refuse_bank_sized_bias(layer, who)
    refuse_vanishing_filters(layer, who)


ADAPTERS = {
    f"YatConv{cls.rank}D": Adapter(_builder(cls), PARAMETERS, ("mask",), _check)
    for cls in (YatConv1d, YatConv2d, YatConv3d)
}
