"""Preparation of YatDense's weight for its kernels."""

import torch
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.kernels.weights import DTYPES, Float32Precision, Prepared, prepare


def prepare_dense(
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    spherical: bool,
    *,
    dtype: torch.dtype,
    precision: Float32Precision | None = None,
) -> Prepared:
    """Prepare `weight` ([N, K]) and `bias` ([N] or [1]) for inputs of `dtype`.

    Raises:
        NmnExportError: A shape, `dtype`, ε, α or `precision` is not supported.
    """
    if dtype not in DTYPES:
        raise NmnExportError(
            "The YatDense kernel takes float16, bfloat16 or float32",
            got=dtype,
            fix="Cast the input, or call nmn_export.ops.yat_dense.",
        )
    if weight.ndim != 2:
        raise NmnExportError(
            "YatDense takes a weight of shape [N, K]",
            got=f"shape {tuple(weight.shape)}",
            fix="Flatten it to two dimensions.",
        )
    if bias is not None and tuple(bias.shape) not in ((weight.shape[0],), (1,)):
        raise NmnExportError(
            f"YatDense takes a bias of shape [{weight.shape[0]}] or [1]",
            got=f"shape {tuple(bias.shape)}",
            fix="Pass one number per output, or one for all outputs.",
        )
    return prepare(
        weight, bias, epsilon, alpha, dtype=dtype, spherical=spherical, precision=precision
    )
