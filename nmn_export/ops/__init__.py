"""The ops: the declaration, eager formula, float64 truth and torch op of each."""

from nmn_export.ops import attention, conv, conv_transpose, dense
from nmn_export.ops.attention import exact_yat_attention, yat_attention
from nmn_export.ops.conv import exact_yat_conv, yat_conv
from nmn_export.ops.conv_transpose import exact_yat_conv_transpose, yat_conv_transpose
from nmn_export.ops.dense import exact_yat_dense, yat_dense
from nmn_export.ops.spec import DOMAIN, PLUGIN_ATTRIBUTES, VERSION, OpSpec

OPS: dict[str, OpSpec] = {op.SPEC.name: op.SPEC for op in (dense, conv, conv_transpose, attention)}
"""Every `ai.nmn` op by its ONNX name."""

__all__ = [
    "DOMAIN",
    "OPS",
    "PLUGIN_ATTRIBUTES",
    "VERSION",
    "OpSpec",
    "exact_yat_attention",
    "exact_yat_conv",
    "exact_yat_conv_transpose",
    "exact_yat_dense",
    "yat_attention",
    "yat_conv",
    "yat_conv_transpose",
    "yat_dense",
]
