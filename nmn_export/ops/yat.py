"""The ⵟ-product in PyTorch: the formula that all eager ops share, and its precision rules.

y = α (s + b)² / (max(‖x‖² + ‖w‖² − 2s, 0) + ε),    s = ⟨x, w⟩
"""

from typing import Any

import torch
from torch import Tensor

Scalar = float | Tensor
"""A number, or a tensor of one element that may need gradients."""

HALF_PRECISIONS = (torch.float16, torch.bfloat16)

UNIT_NORM_GUARD = 1e-8
"""Added to a norm before dividing by it, so that a zero vector stays zero."""


def yat(
    numerator: Tensor,
    dot: Tensor,
    x_sq: Tensor | float,
    w_sq: Tensor | float,
    epsilon: Scalar,
    alpha: Scalar,
) -> Tensor:
    """Combine a dot product and two squared norms into the ⵟ-product.

    All tensors broadcast to the shape of `dot` and share its dtype.

    Args:
        numerator: s + b; the bias is inside the square and nowhere else.
        dot: s = ⟨x, w⟩.
        x_sq: ‖x‖².
        w_sq: ‖w‖².
        epsilon: ε > 0, added to the distance after it is clamped at zero.
        alpha: α, a plain multiplier.
    """
    distance = (x_sq + w_sq - 2 * dot).clamp_min(0)
    alpha = cast(alpha, dot.dtype) if isinstance(alpha, Tensor) else alpha
    return numerator.square() / (distance + epsilon) * alpha


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to accumulate in: float32 for float16 and bfloat16, else `dtype`."""
    return torch.float32 if dtype in HALF_PRECISIONS else dtype


class _Widen(torch.autograd.Function):
    """Casts a half precision to a wider dtype. The gradient saturates on its way back."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.to(dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, torch.dtype], output: Tensor) -> None:
        del output
        ctx.narrow, ctx.wide = inputs[0].dtype, inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return saturate(gradients[0], ctx.narrow), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        tangent: Tensor = tangents[0]
        return tangent.to(ctx.wide)


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast to `dtype`. The gradient of a half precision saturates instead of becoming infinite."""
    if x.dtype in HALF_PRECISIONS and dtype not in HALF_PRECISIONS:
        widened: Tensor = _Widen.apply(x, dtype)  # type: ignore[no-untyped-call]
        return widened
    return x.to(dtype)


def saturate(y: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast to `dtype`. Values beyond its range become its largest finite value; NaN stays NaN."""
    if y.dtype == dtype:
        return y
    limit = torch.finfo(dtype).max
    return y.clamp(-limit, limit).to(dtype)


def unit_rows(v: Tensor) -> Tensor:
    """Divide every vector along the last axis by its norm (plus 1e-8, so that zero stays zero)."""
    norm: Tensor = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    return v / (norm + UNIT_NORM_GUARD)


def clamped_rows(v: Tensor) -> Tensor:
    """Return vectors along the last axis that `unit_rows` maps to v / max(‖v‖, 1e-8).

    A vector shorter than 1e-8 has to become v / (1 − ‖v‖ / 1e-8). For others any much longer vector
    will do, such as the unit vector.
    """
    norm: Tensor = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    return v / torch.maximum(1 - norm / UNIT_NORM_GUARD, norm)
