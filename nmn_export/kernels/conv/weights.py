"""Preparation of YatConv's filters for its kernel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.kernels.weight_cache import cached
from nmn_export.kernels.weights import DTYPES, Float32Precision, Prepared, precision_for, prepare

_BLOCKS_K = (64, 32, 16)


@dataclass(frozen=True, eq=False)
class ConvWeights:
    """Prepared filters.

    Attributes:
        prepared: Filters as rows of taps · features, the features of every tap padded with zeros.
        kernel: Taps along depth, height and width; 1 along axes that the filters do not have.
        rank: Number of spatial axes of the filters.
        group: Number of groups.
        feat_dim: Features per group, without the padding.
        block_k: Features per step; the padded features are a multiple.
    """

    prepared: Prepared
    kernel: tuple[int, ...]
    rank: int
    group: int
    feat_dim: int
    block_k: int

    @classmethod
    def of(cls, prepared: Prepared, feat_dim: int, kernel: Sequence[int], group: int) -> Self:
        """Return `prepared`, which was made from filters of these sizes, with the sizes."""
        rank = len(kernel)
        block_k = _block_k(feat_dim, prepared.dtype, prepared.precision)
        kernel = (*(1,) * (3 - rank), *kernel)
        return cls(prepared, kernel, rank, group, feat_dim, block_k)


def prepare_conv(
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    group: int,
    *,
    dtype: torch.dtype,
    precision: Float32Precision | None = None,
) -> ConvWeights:
    """Prepare `weight` ([O, C / group, *K]) and `bias` ([O] or [1]) for inputs of `dtype`.

    Raises:
        NmnExportError: A shape, `group`, `dtype`, ε, α or `precision` is not supported.
    """
    check_weight("YatConv", weight, bias, group, dtype, "filters")
    return prepare_filters(weight, bias, epsilon, alpha, group, dtype=dtype, precision=precision)


def prepare_filters(
    filters: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    group: int,
    *,
    dtype: torch.dtype,
    precision: Float32Precision | None,
) -> ConvWeights:
    """Prepare `filters` ([O, C / group, *K]), see `prepare_conv`; shapes are not checked."""
    precision = precision_for(dtype, precision)
    feat_dim, kernel = filters.shape[1], filters.shape[2:]
    padding = -feat_dim % _block_k(feat_dim, dtype, precision)
    rows = F.pad(filters.detach().movedim(1, -1), (0, padding)).reshape(len(filters), -1)
    prepared = prepare(rows, bias, epsilon, alpha, dtype=dtype, precision=precision)
    return ConvWeights.of(prepared, feat_dim, kernel, group)


def cached_conv(
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
        ("conv", dtype, precision, epsilon, alpha, group),
        lambda: (
            prepare_conv(
                weight, bias, epsilon, alpha, group, dtype=dtype, precision=precision
            ).prepared
        ),
    )
    return ConvWeights.of(prepared, weight.shape[1], weight.shape[2:], group)


def _block_k(feat_dim: int, dtype: torch.dtype, precision: Float32Precision) -> int:
    """Return the features per step with the least padding; of several, the largest."""
    largest = {"ieee": 16}.get(precision, 32) if dtype == torch.float32 else 64
    return min((k for k in _BLOCKS_K if k <= largest), key=lambda k: (-feat_dim % k, -k))


def check_weight(
    op: str, weight: Tensor, bias: Tensor | None, group: int, dtype: torch.dtype, counted: str
) -> None:
    """Check the parameters of YatConv or YatConvTranspose.

    Args:
        op: Name of the op.
        weight: Its weight. Dimension 0 counts all filters, or all input channels.
        bias: [O] or [1].
        group: Number of groups.
        dtype: Dtype of the input.
        counted: What dimension 0 of the weight counts.

    Raises:
        NmnExportError: A shape, `group` or `dtype` is not supported.
    """
    if dtype not in DTYPES:
        raise NmnExportError(
            f"The {op} kernel takes float16, bfloat16 or float32",
            got=dtype,
            fix="Cast the input, or call the formula in nmn_export.ops.",
        )
    if not 3 <= weight.ndim <= 5:
        raise NmnExportError(
            f"{op} takes filters with one to three spatial axes",
            got=f"shape {tuple(weight.shape)}",
            fix="Reshape them to two axes of channels, and then the spatial ones.",
        )
    if group < 1 or len(weight) % group:
        raise NmnExportError(
            f"{op} takes groups that divide its {len(weight)} {counted}",
            got=f"group {group}",
            fix=f"Choose a divisor of the number of {counted}.",
        )
    outputs = len(weight) if counted == "filters" else weight.shape[1] * group
    if bias is not None and tuple(bias.shape) not in ((outputs,), (1,)):
        raise NmnExportError(
            f"{op} takes a bias of shape [{outputs}] or [1]",
            got=f"shape {tuple(bias.shape)}",
            fix="Pass one number per filter, or one for all filters.",
        )
