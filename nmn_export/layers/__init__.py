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

YatNMN = NMNLayer = YatDense
YatConv1D, YatConv2D, YatConv3D = YatConv1d, YatConv2d, YatConv3d
YatConvTranspose1D = YatConvTranspose1d
YatConvTranspose2D = YatConvTranspose2d
YatConvTranspose3D = YatConvTranspose3d

__all__ = [
    "MultiHeadYatAttention",
    "NMNLayer",
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
    "normalize_qk",
    "yat_attention",
    "yat_attention_normalized",
    "yat_attention_weights",
]
