"""YatDense: the ⵟ-product of every row of an input with every row of a weight matrix."""

import torch
from torch import Tensor

from nmn_export.ops.autograd import register_autograd
from nmn_export.ops.spec import OpSpec
from nmn_export.ops.yat import Scalar, cast, compute_dtype, saturate, unit_rows, yat


def yat_dense(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    epsilon: Scalar = 1e-5,
    alpha: Scalar = 1.0,
    spherical: bool = False,
) -> Tensor:
    """Return α (⟨x, w⟩ + b)² / (‖x − w‖² + ε), differentiable in every argument.

    Args:
        x: Input, [..., K], of any floating dtype. float16 and bfloat16 are computed in float32, and
            the result saturates.
        weight: [N, K], cast to the dtype of `x`.
        bias: [N] or [1].
        epsilon: ε > 0.
        alpha: α.
        spherical: Divide rows of `x` and `weight` by their norms (plus 1e-8) first. The distance is
            then max(2 − 2⟨x, w⟩, 0), also for zero vectors.

    Returns:
        [..., N] in the dtype of `x`.
    """
    wide = compute_dtype(x.dtype)
    x_wide, w = cast(x, wide), cast(cast(weight, x.dtype), wide)
    b = None if bias is None else cast(cast(bias, x.dtype), wide)
    if spherical:
        x_wide, w = unit_rows(x_wide), unit_rows(w)
    dot = numerator = x_wide @ w.t()
    if b is not None:
        # The nmn package computes it this way, and adapted networks must give the same bits. The
        # distance loses digits only if b is very large.
        numerator = dot + b
        dot = numerator - b
    if spherical:
        y = yat(numerator, dot, 1.0, 1.0, epsilon, alpha)
    else:
        x_sq = x_wide.square().sum(-1, keepdim=True)
        y = yat(numerator, dot, x_sq, w.square().sum(-1), epsilon, alpha)
    return saturate(y, x.dtype)


def exact_yat_dense(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    spherical: bool,
    *,
    displacement: float = 0.0,
) -> Tensor:
    """`yat_dense` in float64 with ‖x − w‖² as a sum of squared differences, which does not cancel.

    `displacement`, a multiple of ‖x‖² + ‖w‖², is added to ‖x − w‖² as rounding would.
    """
    x, weight = x.double(), weight.double()
    if spherical:
        x, weight = unit_rows(x), unit_rows(weight)
    dot = x @ weight.t()
    if spherical:
        distance = (2 - 2 * dot).clamp_min(0)
    else:
        rows = x.reshape(1, -1, x.shape[-1])
        distance = torch.cdist(
            rows, weight.unsqueeze(0), compute_mode="donot_use_mm_for_euclid_dist"
        )
        distance = distance.square().reshape(dot.shape)
    if displacement:
        w_sq = weight.square().sum(-1)
        norms = 2.0 if spherical else x.square().sum(-1, keepdim=True) + w_sq
        distance = (distance + displacement * norms).clamp_min(0)
    numerator = dot if bias is None else dot + bias.double()
    return alpha * numerator.square() / (distance + epsilon)


@torch.library.custom_op("nmn::yat_dense", mutates_args=())
def _yat_dense_op(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    spherical: bool,
) -> Tensor:
    return yat_dense(x, weight, bias, epsilon, alpha, spherical)


@_yat_dense_op.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    spherical: bool,
) -> Tensor:
    del bias, epsilon, alpha, spherical
    # The op cannot have a dynamic last axis. Without this check, tracing would accept one.
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(f"x has {x.shape[-1]} features, and weight {weight.shape[1]}")
    return x.new_empty(*x.shape[:-1], weight.shape[0])


register_autograd(_yat_dense_op, yat_dense)

SPEC = OpSpec(
    name="YatDense",
    summary="y = alpha (<x, w> + b)^2 / (max(|x|^2 + |w|^2 - 2 <x, w>, 0) + epsilon)",
    inputs={"X": "[..., K]", "W": "[N, K]", "B": "[N]"},
    attributes={"epsilon": 1e-5, "alpha": 1.0, "spherical": 0},
    attribute_types={"epsilon": float, "alpha": float, "spherical": int},
    torch_op=torch.ops.nmn.yat_dense.default,
    exact=exact_yat_dense,
)
