"""`YatNMN` of `nmn.torch`."""

from collections.abc import Callable
from typing import Any

from nmn_export.adapt.adapter import Adapter
from nmn_export.adapt.yat_layer import PARAMETERS, refuse_vanishing_filters, shared_options
from nmn_export.layers import YatDense


def builder(cls: type[YatDense]) -> Callable[[Any], YatDense]:
    """Return what builds a layer of a class of ours from one of nmn's."""

    def build(m: Any) -> YatDense:
        return cls(
            m.in_features,
            m.out_features,
            alpha=m.alpha is not None,
            spherical=getattr(m, "spherical", False),
            dtype=m.dtype,
            **shared_options(m),
        )

    return build


ADAPTERS = {"YatNMN": Adapter(builder(YatDense), PARAMETERS, check=refuse_vanishing_filters)}
