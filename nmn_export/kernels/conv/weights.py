"""Preparation of YatConv's filters for its kernel."""

from dataclasses import dataclass

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
    def of(cls, prepared: Prepared, weight: Tensor, group: int) -> "ConvWeights":
        """Return `prepared`, which was made from `weight`, with its sizes."""
        rank, feat_dim = weight.ndim - 2, weight.shape[1]
        block_k = _block_k(feat_dim, prepared.dtype, prepared.precision)
        kernel = (*(1,) * (3 - rank), *weight.shape[2:])
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
    _check(weight, bias, group, dtype)
    precision = precision_for(dtype, precision)
    block_k = _block_k(weight.shape[1], dtype, precision)
    rows = F.pad(weight.detach().movedim(1, -1), (0, -weight.shape[1] % block_k))
    rows = rows.reshape(weight.shape[0], -1)
    prepared = prepare(rows, bias, epsilon, alpha, dtype=dtype, precision=precision)
    return ConvWeights.of(prepared, weight, group)


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
    return ConvWeights.of(prepared, weight, group)


def _block_k(feat_dim: int, dtype: torch.dtype, precision: Float32Precision) -> int:
    """Return the features per step with the least padding; of several, the largest."""
    largest = {"ieee": 16}.get(precision, 32) if dtype == torch.float32 else 64
    return min((k for k in _BLOCKS_K if k <= largest), key=lambda k: (-feat_dim % k, -k))


def _check(weight: Tensor, bias: Tensor | None, group: int, dtype: torch.dtype) -> None:
    if dtype not in DTYPES:
        raise NmnExportError(
            "The YatConv kernel takes float16, bfloat16 or float32",
            got=dtype,
            fix="Cast the input, or call nmn_export.ops.yat_conv.",
        )
    if not 3 <= weight.ndim <= 5:
        raise NmnExportError(
            "YatConv takes filters with one to three spatial axes",
            got=f"shape {tuple(weight.shape)}",
            fix="Reshape them to [O, C / group, *K].",
        )
    if group < 1 or weight.shape[0] % group:
        raise NmnExportError(
            f"YatConv takes groups that divide its {weight.shape[0]} filters",
            got=f"group {group}",
            fix="Choose a divisor of the number of filters.",
        )
    if bias is not None and tuple(bias.shape) not in ((weight.shape[0],), (1,)):
        raise NmnExportError(
            f"YatConv takes a bias of shape [{weight.shape[0]}] or [1]",
            got=f"shape {tuple(bias.shape)}",
            fix="Pass one number per filter, or one for all filters.",
        )
