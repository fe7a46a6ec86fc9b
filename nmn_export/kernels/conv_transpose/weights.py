"""Preparation of YatConvTranspose's filters for its kernel. The result is as for YatConv."""

import torch
from torch import Tensor

from nmn_export.kernels.conv.weights import ConvWeights, check_weight, prepare_filters
from nmn_export.kernels.weight_cache import cached
from nmn_export.kernels.weights import Float32Precision, precision_for
from nmn_export.ops.conv_transpose import filters_of


def prepare_conv_transpose(
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    group: int,
    *,
    dtype: torch.dtype,
    precision: Float32Precision | None = None,
) -> ConvWeights:
    """Prepare `weight` ([C, O / group, *K]) and `bias` ([O] or [1]) for inputs of `dtype`.

    Raises:
        NmnExportError: A shape, `group`, `dtype`, ε, α or `precision` is not supported.
    """
    check_weight("YatConvTranspose", weight, bias, group, dtype, "input channels")
    filters = filters_of(weight.detach(), group)
    return prepare_filters(filters, bias, epsilon, alpha, group, dtype=dtype, precision=precision)


def cached_conv_transpose(
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    group: int,
    *,
    dtype: torch.dtype,
) -> ConvWeights:
    """Return the prepared filters, from the cache if the parameters have not changed."""
    precision = precision_for(dtype)
    prepared = cached(
        weight,
        bias,
        ("conv_transpose", dtype, precision, epsilon, alpha, group),
        lambda: (
            prepare_conv_transpose(
                weight, bias, epsilon, alpha, group, dtype=dtype, precision=precision
            ).prepared
        ),
    )
    return ConvWeights.of(prepared, len(weight) // group, weight.shape[2:], group)
