"""Options that all ⵟ layers share, and the checks of their values."""

import math
from collections.abc import Callable
from typing import Literal, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from nmn_export.errors import OptionError

Initializer = Callable[[Tensor], object]
"""Fills a parameter in place, as the functions of `torch.nn.init` do."""


class SharedOptions(TypedDict):
    """Options that every ⵟ layer hands to `YatLayer`. The layers document them."""

    bias: bool
    constant_bias: float | bool | None
    softplus_bias: bool
    scalar_bias: bool
    alpha: bool | Literal["geometric"]
    constant_alpha: float | bool | None
    epsilon: float
    learnable_epsilon: bool
    weight_normalized: bool
    positive_init: bool
    lazy: bool
    tie_kernel_bank: bool
    kernel_bank_size: int | None
    kernel_bank_id: str
    kernel_init: Initializer | None
    bias_init: Initializer | None
    alpha_init: Initializer | None
    use_dropconnect: bool
    drop_rate: float
    mask: Tensor | None
    device: torch.device | str | None
    dtype: torch.dtype | None
    param_dtype: torch.dtype | None


def number(constant: float | bool | None) -> float | None:
    """Return a constant as a number; `False` stands for none, as in upstream's layers."""
    return None if constant is None or constant is False else float(constant)


def inverse_softplus(epsilon: float) -> float:
    """Return what softplus maps to `epsilon`, in a form that keeps its digits if it is small."""
    return epsilon + math.log(-math.expm1(-epsilon))


def check_scalars(
    constant_alpha: float | bool | None,
    epsilon: float,
    learnable_epsilon: bool,
    epsilon_dtype: torch.dtype,
) -> None:
    """Raise `OptionError` for an α or ε that no ⵟ layer can have."""
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise OptionError("epsilon must be positive and finite", got=epsilon, fix="Use 1e-5, say.")
    if learnable_epsilon:
        learned = F.softplus(torch.tensor(inverse_softplus(epsilon), dtype=epsilon_dtype)).item()
        # Half of the smallest normal number: softplus may round to just below that number.
        if not torch.finfo(epsilon_dtype).tiny / 2 < learned < math.inf:
            raise OptionError(
                f"A learnable epsilon must be representable in {epsilon_dtype}",
                got=f"{epsilon}, which is not representable",
                fix="Use one between 1e-20 and 1e20.",
            )
    _check_finite("constant_alpha", constant_alpha)


def _check_finite(name: str, constant: float | bool | None) -> None:
    if constant is not None and not math.isfinite(constant):
        raise OptionError(f"{name} must be finite", got=constant, fix="Use another number.")


def check_options(
    options: SharedOptions, weight_shape: tuple[int, ...], epsilon_dtype: torch.dtype
) -> None:
    """Raise `OptionError` for an option that no layer with filters or prototypes can have."""
    check_scalars(
        options["constant_alpha"], options["epsilon"], options["learnable_epsilon"], epsilon_dtype
    )
    drop_rate, mask = options["drop_rate"], options["mask"]
    if not 0 <= drop_rate < 1:
        raise OptionError(
            "drop_rate must be in [0, 1)", got=drop_rate, fix="Use 0 to keep every weight."
        )
    if options["alpha"] not in (True, False, "geometric"):
        raise OptionError(
            "alpha must be True, False or 'geometric'",
            got=repr(options["alpha"]),
            fix="Use constant_alpha for a number.",
        )
    _check_finite("constant_bias", options["constant_bias"])
    if mask is not None and not _broadcasts(mask.shape, weight_shape):
        raise OptionError(
            f"mask must broadcast to the weights, of shape {weight_shape}",
            got=f"shape {tuple(mask.shape)}",
            fix="Give it that shape.",
        )
    size = options["kernel_bank_size"]
    if options["tie_kernel_bank"] and size is not None and size < weight_shape[0]:
        raise OptionError(
            "kernel_bank_size must be at least the number of outputs",
            got=f"{size} for {weight_shape[0]} outputs",
            fix="Leave it out, or use a larger number.",
        )


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Return whether a tensor of `shape` broadcasts to `target`."""
    return len(shape) <= len(target) and all(
        size in (1, wanted) for size, wanted in zip(shape[::-1], target[::-1], strict=False)
    )
