"""What dense layers and convolutions of `nmn.torch` have in common."""

from typing import Any

import torch

from nmn_export.errors import NmnExportError
from nmn_export.layers import YatDense, YatLayer

PARAMETERS = ("weight", "bias", "alpha", "epsilon_param")

_NORM_SQ_TOLERANCE = 1e-6
"""Largest difference of ‖w‖² of a normalised filter from 1, the value that nmn uses."""


def shared_options(m: Any) -> dict[str, Any]:
    """Read what all layers have.

    Earlier releases lack the attributes that have a default here, and transposed convolutions do
    not normalise weights.
    """
    return {
        "bias": m.bias is not None,
        "constant_bias": _constant_bias(m),
        "softplus_bias": getattr(m, "softplus_bias", False),
        "scalar_bias": getattr(m, "scalar_bias", False),
        "constant_alpha": getattr(m, "_constant_alpha_value", None),
        "epsilon": m.epsilon,
        "learnable_epsilon": getattr(m, "epsilon_param", None) is not None,
        "weight_normalized": getattr(m, "weight_normalized", False),
        # The parameters are replaced later, so they need no memory and no random numbers.
        "device": "meta",
    }


def convolution_options(m: Any) -> dict[str, Any]:
    """Read what convolutions and transposed convolutions have."""
    drops = bool(m.use_dropconnect)
    return {
        "padding_mode": m.padding_mode,
        "use_alpha": m.alpha is not None,
        "use_dropconnect": drops,
        "drop_rate": m.drop_rate if drops else 0.0,
        "mask": m.mask,
        "dtype": getattr(m, "compute_dtype", None),
    } | shared_options(m)


def _constant_bias(m: Any) -> float | None:
    """Return the constant bias, rounded to the dtype of the tensor that nmn makes of it."""
    value = getattr(m, "_constant_bias_value", None)
    if value is None:
        return None
    return torch.tensor(value, dtype=m.param_dtype or m.weight.dtype).item()


def refuse_bank_sized_bias(layer: YatLayer, who: str) -> None:
    """Refuse the bias of a tied convolution of early releases, whose forward pass fails in nmn."""
    if layer.bias is not None and layer.bias.numel() not in (1, layer.out_count):
        raise NmnExportError(
            "a bias must have one entry, or one per output",
            got=f"{who}, with {layer.bias.numel()} for {layer.out_count} outputs",
            fix="Build it with bias=False or without kernel_bank_size; in nmn before 0.3.3 its "
            "forward fails as it is.",
        )


def refuse_vanishing_filters(layer: YatLayer, who: str) -> None:
    """Refuse normalised filters that are too short to have norm 1 after normalisation.

    nmn divides a filter by its norm plus 1e-8 and then uses 1 for ‖w‖², even for a filter of zeros.
    Our ops compute ‖w‖². If a filter and its bias are zero, the output is zero in both.
    """
    if not layer.weight_normalized or (isinstance(layer, YatDense) and layer.spherical):
        return
    with torch.no_grad():
        norm_sq = layer.effective_weight().double().flatten(1).square().sum(1)
        bias = layer.effective_bias()
        silent = norm_sq == 0 if bias is None else (norm_sq == 0) & (bias == 0)
        short = ((1 - norm_sq > _NORM_SQ_TOLERANCE) & ~silent).nonzero().flatten().tolist()
    if short:
        raise NmnExportError(
            "weight_normalized needs filters whose norm is well above 1e-8, mask included",
            got=f"{who}, whose filters {short} are zero or nearly so",
            fix="Divide those filters by their norms, which changes nothing else. If one is zero, "
            "set its bias to zero or remove the filter.",
        )
