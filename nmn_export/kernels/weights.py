"""Preparation of weights for the kernels: planes, norms, bias, α and ε. It is done once per weight.

This module, `weight_cache` and the weights.py of every op do not import Triton, because engines are
also built on machines without it.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.ops.yat import UNIT_NORM_GUARD

Float32Precision = Literal["bf16x6", "bf16x3", "tf32", "ieee"]
"""How float32 products are computed.

"bf16x6" splits each operand into three bfloat16 parts and computes six products. "bf16x3" splits
it into two and computes three. "tf32" uses TF32 tensor cores, and "ieee" the float32 units.
Products of half-precision operands are exact, so they always use "ieee"."""

PLANES: dict[str, int] = {"bf16x6": 3, "bf16x3": 2, "tf32": 1, "ieee": 1}

DTYPES = (torch.float16, torch.bfloat16, torch.float32)

ALIGNMENT = 16
"""Features of the operands are padded to a multiple of this number of elements. Triton copies
16 bytes at a time if it knows that sizes, strides and addresses are multiples of 16."""

ALPHA_LIMIT = 2.0**60
"""Largest |α| and 1/|α|. Norms up to 2^67, scaled by either, do not overflow float32."""


@dataclass(frozen=True)
class Fold:
    """α and ε in the form that the kernels use.

    Attributes:
        norm_scale: 1 / |α|, rounded to float32; 0 if α = 0.
        floor: ε / |α|, the smallest denominator; infinite if α = 0, so that every output is 0.
        negative: Whether α < 0.
    """

    norm_scale: float
    floor: float
    negative: bool


def fold(epsilon: float, alpha: float) -> Fold:
    """Return α and ε in the form that the kernels use.

    Raises:
        NmnExportError: ε is not positive and finite, or |α| is outside the supported range.
    """
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise NmnExportError(
            "ε must be positive and finite", got=epsilon, fix="Use, for example, 1e-5."
        )
    if alpha == 0:
        return Fold(norm_scale=0.0, floor=math.inf, negative=False)
    if not 1 / ALPHA_LIMIT <= abs(alpha) <= ALPHA_LIMIT:
        raise NmnExportError(
            "The kernels support α = 0 and 2^-60 <= |α| <= 2^60",
            got=alpha,
            fix="Scale the layer's output instead.",
        )
    norm_scale = torch.tensor(1 / abs(alpha), dtype=torch.float32).item()
    return Fold(norm_scale=norm_scale, floor=epsilon * norm_scale, negative=alpha < 0)


@dataclass(frozen=True, eq=False)
class Prepared:
    """Prepared weights, for one input dtype, one α and one ε.

    Attributes:
        planes: [P, N, K']: the weight itself (P = 1), or P bfloat16 tensors that add up to a
            float32 weight. K' is K, padded with zeros to a multiple of `ALIGNMENT`.
        column_term: [N] float32, (‖w‖² + ε) / |α|; (1 + ε) / |α| if spherical.
        column_scale: [N] float32, 1 / (‖w‖ + 1e-8) if spherical, else `None`.
        bias: [N] float32, or `None`.
        feat_dim: K, without the padding.
        dtype: Dtype of the input and the output.
        precision: How float32 products are computed; "ieee" for half precision.
        fold: α and ε.
    """

    planes: Tensor
    column_term: Tensor
    column_scale: Tensor | None
    bias: Tensor | None
    feat_dim: int
    dtype: torch.dtype
    precision: Float32Precision
    fold: Fold


def precision_for(
    dtype: torch.dtype, precision: Float32Precision | None = None
) -> Float32Precision:
    """Return `precision`, or the one that `torch.set_float32_matmul_precision` selects.

    "highest", the default, selects bf16x6, which is as accurate as float32. "high" selects bf16x3,
    and "medium" TF32.

    Raises:
        NmnExportError: `precision` is unknown.
    """
    if dtype != torch.float32:
        return "ieee"
    if precision is None:
        choices: dict[str, Float32Precision] = {"high": "bf16x3", "medium": "tf32"}
        return choices.get(torch.get_float32_matmul_precision(), "bf16x6")
    if precision not in get_args(Float32Precision):
        raise NmnExportError(
            f"precision must be one of {', '.join(get_args(Float32Precision))}",
            got=repr(precision),
            fix="Omit it to use torch.get_float32_matmul_precision().",
        )
    return precision


def prepare(
    rows: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    *,
    dtype: torch.dtype,
    spherical: bool = False,
    precision: Float32Precision | None = None,
) -> Prepared:
    """Prepare the filters or prototypes `rows`, of shape [N, K], for inputs of `dtype`.

    Args:
        rows: [N, K]. Cast to `dtype` first, so that norms and products use the same values.
        bias: [N] or [1].
        epsilon: ε > 0.
        alpha: α.
        dtype: float16, bfloat16 or float32.
        spherical: Whether rows are divided by their norms.
        precision: For float32; `None` uses PyTorch's setting, see `precision_for`.

    Raises:
        NmnExportError: ε, α or `precision` is not supported.
    """
    precision = precision_for(dtype, precision)
    folded = fold(epsilon, alpha)
    rows = rows.detach().to(dtype)
    if precision == "tf32":
        rows = _round_to_tf32(rows)
    feat_dim = rows.shape[1]
    rows = _align(rows)
    w_sq = rows.to(torch.float32).square().sum(1)
    column_scale = (w_sq.sqrt() + UNIT_NORM_GUARD).reciprocal() if spherical else None
    numerator = torch.ones_like(w_sq) if spherical else w_sq
    column_term = numerator * folded.norm_scale + epsilon * folded.norm_scale
    if bias is not None:
        bias = bias.detach().to(dtype).to(torch.float32).expand(len(rows)).contiguous()
    return Prepared(
        planes=_split(rows, PLANES[precision]),
        column_term=column_term,
        column_scale=column_scale,
        bias=bias,
        feat_dim=feat_dim,
        dtype=dtype,
        precision=precision,
        fold=folded,
    )


def _align(rows: Tensor) -> Tensor:
    """Return `rows`, padded with zeros to a multiple of 16 elements if they are not aligned."""
    if aligned(rows):
        return rows
    return F.pad(rows, (0, -rows.shape[1] % ALIGNMENT)).contiguous()


def aligned(rows: Tensor) -> bool:
    """Return whether every row of a matrix can be copied 16 bytes at a time."""
    return (
        rows.stride(1) == 1
        and rows.shape[1] % ALIGNMENT == 0
        and rows.stride(0) % ALIGNMENT == 0
        and rows.data_ptr() % ALIGNMENT == 0
    )


def _round_to_tf32(rows: Tensor) -> Tensor:
    """Round float32 to 10 bits of mantissa, to nearest. Infinities and NaN are unchanged."""
    bits = rows.contiguous().view(torch.int32)
    rounded = ((bits + 4096) & -8192).view(torch.float32)
    return torch.where(rows.isfinite(), rounded, rows)


def _split(rows: Tensor, planes: int) -> Tensor:
    """Return `rows` as [1, N, K], or as [planes, N, K] bfloat16 planes that add up to them."""
    if planes == 1:
        return rows.unsqueeze(0)
    parts = []
    for _ in range(planes):
        parts.append(rows.to(torch.bfloat16))
        rows = rows - parts[-1].to(torch.float32)
    return torch.stack(parts)
