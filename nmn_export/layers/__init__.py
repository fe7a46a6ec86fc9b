"""The ⵟ layers that models are written with, under our names and those of the `nmn` package."""

from nmn_export.layers.attention import MultiHeadYatAttention
from nmn_export.layers.attention_functions import (
    normalize_qk,
    yat_attention,
    yat_attention_normalized,
    yat_attention_weights,
)
from nmn_export.layers.base import YatLayer
from nmn_export.layers.conv import YatConv, YatConv1d, YatConv2d, YatConv3d
from nmn_export.layers.conv_transpose import (
    YatConvTranspose,
    YatConvTranspose1d,
    YatConvTranspose2d,
    YatConvTranspose3d,
)
from nmn_export.layers.dense import YatDense
from nmn_export.layers.embed import YatEmbed
from nmn_export.layers.feature_maps import MaclaurinFeatures, RadialFeatures, SlayFeatures
from nmn_export.layers.linear_attention import (
    LinearYatAttention,
    linear_attention_readout,
    maclaurin_features,
    maclaurin_yat_attention,
    radial_features,
    radial_yat_attention,
)
from nmn_export.layers.projections import (
    create_maclaurin_projection,
    create_radial_projection,
    create_slay_projection,
    maclaurin_coeffs,
)
from nmn_export.layers.rotary import RotaryYatAttention
from nmn_export.layers.rotary_heads import RotaryState
from nmn_export.layers.rotary_step import RotaryStep

YatNMN = NMNLayer = YatDense
YatConv1D, YatConv2D, YatConv3D = YatConv1d, YatConv2d, YatConv3d
YatConvTranspose1D = YatConvTranspose1d
YatConvTranspose2D = YatConvTranspose2d
YatConvTranspose3D = YatConvTranspose3d

__all__ = [
    "LinearYatAttention",
    "MaclaurinFeatures",
    "MultiHeadYatAttention",
    "NMNLayer",
    "RadialFeatures",
    "RotaryState",
    "RotaryStep",
    "RotaryYatAttention",
    "SlayFeatures",
    "YatConv",
    "YatConv1D",
    "YatConv1d",
    "YatConv2D",
    "YatConv2d",
    "YatConv3D",
    "YatConv3d",
    "YatConvTranspose",
    "YatConvTranspose1D",
    "YatConvTranspose1d",
    "YatConvTranspose2D",
    "YatConvTranspose2d",
    "YatConvTranspose3D",
    "YatConvTranspose3d",
    "YatDense",
    "YatEmbed",
    "YatLayer",
    "YatNMN",
    "create_maclaurin_projection",
    "create_radial_projection",
    "create_slay_projection",
    "linear_attention_readout",
    "maclaurin_coeffs",
    "maclaurin_features",
    "maclaurin_yat_attention",
    "normalize_qk",
    "radial_features",
    "radial_yat_attention",
    "yat_attention",
    "yat_attention_normalized",
    "yat_attention_weights",
]
