"""What models are written with: the ⵟ layers, under our names and those of `nmn`, and functions."""

from nmn_export.layers.base import YatLayer
from nmn_export.layers.conv import YatConv, YatConv1d, YatConv2d, YatConv3d
from nmn_export.layers.dense import YatDense
from nmn_export.layers.embed import YatEmbed
from nmn_export.layers.squashers import soft_tanh, softer_sigmoid, softermax

YatNMN = NMNLayer = YatDense
YatConv1D, YatConv2D, YatConv3D = YatConv1d, YatConv2d, YatConv3d

__all__ = [
    "NMNLayer",
    "YatConv",
    "YatConv1D",
    "YatConv1d",
    "YatConv2D",
    "YatConv2d",
    "YatConv3D",
    "YatConv3d",
    "YatDense",
    "YatEmbed",
    "YatLayer",
    "YatNMN",
    "soft_tanh",
    "softer_sigmoid",
    "softermax",
]
