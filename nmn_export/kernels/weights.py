"""What is done to the weights once, before any input is seen: planes, norms, α, ε and the bias.

This module, `dense.weights` and `conv.weights` do not import Triton: an engine is also built on
machines without it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from nmn_export.errors import NmnExportError
from nmn_export.ops.yat import UNIT_NORM_GUARD

Float32Precision = Literal["bf16x6", "bf16x3", "tf32", "ieee"]
"""How float32 products are made: of operands split in three or two bfloat16 parts (six products or
three), in TF32, or on the float32 units. Half-precision products are exact and leave no choice."""

PLANES: dict[str, int] = {"bf16x6": 3, "bf16x3": 2, "tf32": 1, "ieee": 1}

DTYPES = (torch.float16, torch.bfloat16, torch.float32)

ALIGNMENT = 16
"""Features of the kernels' operands are padded to a multiple of it: Triton compiles copies of
16 bytes where it knows that sizes, strides and addresses are multiples of 16."""

_ALPHA_LIMIT = 2.0**60
"""|α| and 1/|α| up to this leave the float32 terms scaled by it room for norms up to 2^67."""


@dataclass(frozen=True)
class Fold:
    """α and ε as the kernels take them.

    Attributes:
        norm_scale: 1 / |α|, a float32 number; 0 where α = 0.
        floor: ε / |α|, the least denominator; infinite where α = 0, so that everything becomes 0.
        negative: Whether α < 0.
    """

    norm_scale: float
    floor: float
    negative: bool


def fold(epsilon: float, alpha: float) -> Fold:
    """Return `epsilon` and `alpha` as the kernels take them."""
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise NmnExportError("ε must be positive and finite", got=epsilon, fix="Use 1e-5, say.")
    if alpha == 0:
        return Fold(norm_scale=0.0, floor=math.inf, negative=False)
    if not 1 / _ALPHA_LIMIT <= abs(alpha) <= _ALPHA_LIMIT:
        raise NmnExportError(
            "The kernels take α = 0 or 2^-60 <= |α| <= 2^60",
            got=alpha,
            fix="Scale the layer's output instead.",
        )
    norm_scale = torch.tensor(1 / abs(alpha), dtype=torch.float32).item()
    return Fold(norm_scale=norm_scale, floor=epsilon * norm_scale, negative=alpha < 0)


@dataclass(frozen=True, eq=False)
class Prepared:
    """Weights as a kernel takes them, for one dtype of input, one α and one ε.

    Attributes:
        planes: [P, N, K'], float32 split into P planes or the weight itself; K' is K padded with
            zeros to a multiple of 16.
        column_term: [N] float32, (‖w‖² + ε) / |α|; (1 + ε) / |α| if spherical.
        column_scale: [N] float32, 1 / (‖w‖ + 1e-8) if spherical, else `None`.
        bias: [N] float32, or `None`.
        feat_dim: K, without the padding.
        dtype: That of the input and the output.
        precision: How float32 products are made; "ieee" for the half precisions.
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
    """Return `precision`, checked, or what `torch.set_float32_matmul_precision` asks for.

    "highest", the default, gives bf16x6, as good as float32; "high" bf16x3; "medium" TF32.
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
            fix="Leave it out to follow torch.get_float32_matmul_precision().",
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
        rows: Cast to `dtype` first, as every norm is that of the values which the product sees.
        bias: [N] or [1].
        epsilon: ε > 0.
        alpha: α.
        dtype: float16, bfloat16 or float32.
        spherical: Whether rows are divided by their norms.
        precision: For float32; `None` follows PyTorch's setting, see `precision_for`.
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
    """Return `rows`, padded with zeros to a multiple of 16 elements, unless they are aligned."""
    if aligned(rows):
        return rows
    return F.pad(rows, (0, -rows.shape[1] % ALIGNMENT)).contiguous()


def aligned(rows: Tensor) -> bool:
    """Return whether rows of a matrix start, and end, where 16 bytes can be copied at a time."""
    return (
        rows.stride(1) == 1
        and rows.shape[1] % ALIGNMENT == 0
        and rows.stride(0) % ALIGNMENT == 0
        and rows.data_ptr() % ALIGNMENT == 0
    )


def _round_to_tf32(rows: Tensor) -> Tensor:
    """Round float32 to the nearest number with 10 bits of mantissa, infinities and NaN aside."""
    bits = rows.contiguous().view(torch.int32)
    rounded = ((bits + 4096) & -8192).view(torch.float32)
    return torch.where(rows.isfinite(), rounded, rows)


def _split(rows: Tensor, planes: int) -> Tensor:
    """Return `rows` as [1, N, K], or as that many bfloat16 planes that add up to them."""
    if planes == 1:
        return rows.unsqueeze(0)
    parts = []
    for _ in range(planes):
        parts.append(rows.to(torch.bfloat16))
        rows = rows - parts[-1].to(torch.float32)
    return torch.stack(parts)


@dataclass(frozen=True, eq=False)
class _Entry:
    """What the cache holds: never a strong reference to a tensor of the user's.

    Attributes:
        storages: Weak references to those of the tensors it was prepared from.
        versions: Version counters of these tensors.
        prepared: The result, its planes an empty tensor where they are a view of the weight.
        view: Shape, strides and offset of that view, or `None`.
    """

    storages: list[StorageWeakRef]
    versions: tuple[int, ...]
    prepared: Prepared
    view: tuple[torch.Size, tuple[int, ...], int] | None


_CACHE: dict[tuple[object, ...], _Entry] = {}


def _weak(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def _gone(references: list[StorageWeakRef]) -> bool:
    return any(reference.expired() for reference in references)  # type: ignore[no-untyped-call]


def cached(
    weight: Tensor, bias: Tensor | None, options: tuple[object, ...], make: Callable[[], Prepared]
) -> Prepared:
    """Return `make()`, or what it returned for the same unchanged tensors and `options`.

    Tensors count as unchanged while their storage lives and their version counter stands. Where
    that cannot be known the weights are prepared anew: for tensors made under inference mode, and,
    while a CUDA graph is captured, for parameters that still want gradients, since no replay would
    notice that they were updated.
    """
    tensors = [weight] if bias is None else [weight, bias]
    capturing = weight.is_cuda and torch.cuda.is_current_stream_capturing()
    if any(t.is_inference() or (capturing and t.requires_grad) for t in tensors):
        return make()
    storages = [_weak(t) for t in tensors]
    key = (
        *options,
        *(ref.cdata for ref in storages),
        *((t.storage_offset(), t.shape, t.stride(), t.dtype) for t in tensors),
    )
    versions = tuple(t._version for t in tensors)
    entry = _CACHE.get(key)
    if entry and entry.versions == versions and not _gone(entry.storages):
        if entry.view is None:
            return entry.prepared
        return replace(entry.prepared, planes=weight.detach().as_strided(*entry.view))
    for old in [k for k, e in _CACHE.items() if _gone(e.storages)]:
        del _CACHE[old]
    prepared = make()
    planes = prepared.planes
    if planes.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr():
        view = (planes.shape, planes.stride(), int(planes.storage_offset()))
        kept = replace(prepared, planes=planes.new_empty(0))
    else:
        view, kept = None, prepared
    _CACHE[key] = _Entry(storages, versions, kept, view)
    return prepared
