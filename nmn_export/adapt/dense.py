"""`YatNMN` of `nmn.torch`."""

from typing import Any

from nmn_export.adapt.adapter import Adapter
from nmn_export.adapt.yat_layer import PARAMETERS, refuse_vanishing_filters, shared_options
from nmn_export.layers import YatDense


def _build(m: Any) -> YatDense:
    return YatDense(
        m.in_features,
        m.out_features,
        alpha=m.alpha is not None,
        spherical=m.spherical,
        dtype=m.dtype,
        **shared_options(m),
    )


ADAPTERS = {"YatNMN": Adapter(_build, PARAMETERS, check=refuse_vanishing_filters)}
