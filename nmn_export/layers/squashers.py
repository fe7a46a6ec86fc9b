"""softermax, softer_sigmoid and soft_tanh: powers in place of exponentials.

They are functions of standard ops, so any runtime has them. They do what those of the `nmn` package
do for every input, which is PyTorch's arithmetic: x^n in the dtype of `x`, with every intermediate
result rounded to it. Half precisions round explicitly here, because runtimes compute them in
float32 and may leave the rounding out.
"""

import math

import torch
from torch import Tensor

from nmn_export.errors import NmnExportError, OptionError
from nmn_export.ops.yat import compute_dtype


def softermax(x: Tensor, n: float = 1.0, epsilon: float = 1e-12, dim: int | None = -1) -> Tensor:
    """Return x^n / (ε + Σ x^n).

    A row of zeros gives zeros, except in float16, where ε is zero and the result is NaN. If x^n
    overflows, the result is NaN there and zero elsewhere. Negative numbers are not clamped.

    Args:
        x: Of any floating dtype and shape.
        n: The power, greater than zero.
        epsilon: ε.
        dim: The axis of the sum; `None` sums over all.

    Returns:
        A tensor of the shape and dtype of `x`.

    Raises:
        OptionError: The power is not a number greater than zero.
        NmnExportError: `x` is not floating-point.
    """
    power = _power(x, n)
    total = power.sum() if dim is None else power.sum(dim, keepdim=True)
    # A number would be written to ONNX in float32, even if `x` is in float64.
    guard = torch.tensor(epsilon, dtype=power.dtype)
    return (power / _rounded(guard + _rounded(total, x), x)).to(x.dtype)


def softer_sigmoid(x: Tensor, n: float = 1.0) -> Tensor:
    """Return x^n / (1 + x^n), which is NaN where x^n overflows, and infinite where it is −1.

    The arguments, the result and the errors are those of `softermax`.
    """
    power = _power(x, n)
    return (power / _rounded(1 + power, x)).to(x.dtype)


def soft_tanh(x: Tensor, n: float = 1.0) -> Tensor:
    """Return (x^n − 1) / (1 + x^n), which is NaN where x^n overflows, and infinite where it is −1.

    The arguments, the result and the errors are those of `softermax`.
    """
    power = _power(x, n)
    return (_rounded(power - 1, x) / _rounded(1 + power, x)).to(x.dtype)


def _power(x: Tensor, n: float) -> Tensor:
    """Return x^n, rounded to the dtype of `x`, in float32 or wider.

    PyTorch has special cases for 1/2 and 3, except in float16. The root of −0 is −0 and that of −∞
    is NaN, where the powers are 0 and ∞. The cube in bfloat16 is rounded twice. ONNX has the power
    only.
    """
    if not (n > 0 and math.isfinite(n)):
        raise OptionError("Power 'n' must be positive and finite", got=n, fix="Use 1, say.")
    if not x.is_floating_point():
        raise NmnExportError(
            "The squashing functions take floating-point input",
            got=x.dtype,
            fix="Call .float() on it.",
        )
    wide = x.to(compute_dtype(x.dtype))
    if x.dtype == torch.float16:
        power = torch.pow(wide, torch.tensor(_nearest(n, x.dtype)))
    elif n == 0.5:
        power = wide.sqrt()
    elif n == 3:
        power = _rounded(wide * wide, x) * wide
    else:
        power = wide ** (_nearest(n, x.dtype) if x.dtype == torch.bfloat16 else n)
    return _rounded(power, x)


def _nearest(n: float, dtype: torch.dtype) -> float:
    """Round a number to a half precision, as PyTorch rounds an exponent."""
    digits = 1 - round(math.log2(torch.finfo(dtype).eps))
    mantissa, exponent = math.frexp(n)
    return math.ldexp(round(math.ldexp(mantissa, digits)), exponent - digits)


def _rounded(y: Tensor, x: Tensor) -> Tensor:
    """Round `y` to the dtype of `x`."""
    return y.to(x.dtype).to(y.dtype)
