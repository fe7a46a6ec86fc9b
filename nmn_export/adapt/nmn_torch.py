"""Conversion of the layers of `nmn.torch` to ours.

The layers are recognised by the module and name of their class, so `nmn` is never imported. Their
options are read from the attributes that the forward passes of releases 0.2.24 to 0.3.5 read.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nmn_export.errors import NmnExportError
from nmn_export.layers import YatConv, YatConv1d, YatConv2d, YatConv3d, YatDense, YatLayer

_PACKAGE = "nmn.torch"
_EXAMPLES = "nmn.torch.examples"

_PARAMETERS = ("weight", "bias", "alpha", "epsilon_param")
_BUFFERS = ("mask",)

_LEFT_ALONE = ("YatEmbed",)

_UPSAMPLE = (
    "Use nn.Upsample and a YatConv instead, or export this part with torch.onnx.export, "
    "which writes the layer in standard ops."
)
_NO_OP_YET = {
    "YatConvTranspose1D": _UPSAMPLE,
    "YatConvTranspose2D": _UPSAMPLE,
    "YatConvTranspose3D": _UPSAMPLE,
    "MultiHeadYatAttention": "Use nn.MultiheadAttention instead, or export this part with "
    "torch.onnx.export, which writes the layer in standard ops.",
}

_DESCRIPTIONS = {"lazy", "tie_kernel_bank", "kernel_bank_size", "kernel_bank_id", "positive_init"}
"""Attributes that describe how the parameters came about, and do not change the computation."""

_HARMLESS_OVERRIDES = ("_compiled_call_impl", "extra_repr", "reset_parameters")

_NORM_SQ_TOLERANCE = 1e-6
"""Largest difference of ‖w‖² of a normalised filter from 1, the value that nmn uses."""


def layer_from_nmn_torch(module: nn.Module, place: str) -> nn.Module | None:
    """Return our layer that computes what `module` does and holds the same parameters.

    Args:
        module: Any module.
        place: Its place in the network, for messages.

    Returns:
        `None` if `module` is not a layer of `nmn.torch`, or one that needs no replacement.

    Raises:
        NmnExportError: It is such a layer, but we have no equal layer.
    """
    cls = _nmn_class(module)
    if cls is None or cls.__name__ in _LEFT_ALONE:
        return None
    who = f"{cls.__name__} at '{place}'" if place else f"{cls.__name__}, the model itself"
    _refuse_legacy(module, cls, who)
    if cls.__name__ not in _BUILDERS:
        if cls.__name__ not in _NO_OP_YET and not (module._parameters or module._buffers):
            return None  # It only holds other modules, which are visited too.
        raise NmnExportError(
            f"adapt supports {', '.join(_BUILDERS)} of {_PACKAGE}",
            got=who,
            fix=_NO_OP_YET.get(cls.__name__, "Replace it by one of these."),
        )
    _refuse_unreadable(module, cls, who)
    _refuse_changed(module, cls, who)
    return _build(module, cls, who)


def _nmn_class(module: nn.Module) -> type | None:
    """Return the class of `nmn.torch` that `module` is of, itself or by inheritance."""
    for cls in type(module).__mro__:
        home = f"{cls.__module__}."
        if home.startswith(f"{_PACKAGE}.") and not home.startswith(f"{_EXAMPLES}."):
            return cls
    return None


def _refuse_legacy(module: nn.Module, cls: type, who: str) -> None:
    """Refuse a layer of a release that had another formula under the same names."""
    known = {name.lower() for name in (*_BUILDERS, *_NO_OP_YET)}
    if cls.__name__.lower() in known and not hasattr(module, "_constant_alpha_value"):
        raise NmnExportError(
            "adapt supports layers of nmn 0.2.24 to 0.3.5; those up to 0.2.6 add the bias after "
            "dividing and use alpha as an exponent",
            got=f"{who}, of such a release",
            fix="Rebuild and retrain the network with a later nmn.",
        )


def _refuse_unreadable(module: nn.Module, cls: type, who: str) -> None:
    """Refuse a layer whose parameters are computed, or that has more tensors than nmn gives it."""
    computed = [
        name
        for name in _PARAMETERS
        if isinstance(getattr(module, name, None), Tensor) and name not in module._parameters
    ]
    if computed:
        raise NmnExportError(
            f"adapt needs the {' and '.join(computed)} of a layer to be a plain parameter",
            got=f"{who}, where a parametrization, pruning or a hook computes it",
            fix="Make it permanent first with torch.nn.utils.parametrize.remove_parametrizations, "
            "torch.nn.utils.remove_weight_norm or torch.nn.utils.prune.remove.",
        )
    unknown = [
        name
        for tensors, known in ((module._parameters, _PARAMETERS), (module._buffers, _BUFFERS))
        for name, tensor in tensors.items()
        if tensor is not None and name not in known
    ] + list(module._modules)
    if unknown:
        raise NmnExportError(
            f"adapt supports a {cls.__name__} that has {', '.join(_PARAMETERS + _BUFFERS)} only",
            got=f"{who}, which also has {', '.join(unknown)}",
            fix=f"Use a plain {cls.__name__}, and keep the rest in the module around it.",
        )


def _refuse_changed(module: nn.Module, cls: type, who: str) -> None:
    """Refuse a layer whose subclass or instance overrides what the forward pass uses."""
    mro = type(module).__mro__
    spaces = [vars(module), *(vars(c) for c in mro[: mro.index(cls)])]
    changed = {
        name
        for space in spaces
        for name, value in space.items()
        if callable(value) or isinstance(value, property)
        if hasattr(cls, name) and name not in _HARMLESS_OVERRIDES
        if not name.startswith("__") or name == "__call__"
    }
    if changed:
        raise NmnExportError(
            f"adapt can replace a {cls.__name__} only if it computes what nmn's does",
            got=f"{who}, a {type(module).__name__} with a {', '.join(sorted(changed))} of its own",
            fix=f"Put a plain {cls.__name__} and the rest of the computation in a module that "
            "holds it.",
        )


def _build(module: nn.Module, cls: type, who: str) -> YatLayer:
    """Return our layer with the options, parameters, hooks and mode of `module`."""
    try:
        layer = _BUILDERS[cls.__name__](module)
    except NmnExportError as error:
        raise NmnExportError(
            "adapt needs options that our layers support", got=who, fix=str(error)
        ) from error
    for name in _PARAMETERS:
        layer.register_parameter(name, module._parameters.get(name))
    for name, hooks in vars(module).items():
        if name.startswith("_forward_"):
            setattr(layer, name, copy.copy(hooks))
    layer.training = module.training
    for name in _DESCRIPTIONS & vars(module).keys():
        setattr(layer, name, getattr(module, name))
    _refuse_bank_sized_bias(layer, who)
    _refuse_vanishing_filters(layer, who)
    return layer


def _dense(m: Any) -> YatDense:
    return YatDense(
        m.in_features,
        m.out_features,
        alpha=m.alpha is not None,
        spherical=m.spherical,
        dtype=m.dtype,
        **_shared_options(m),
    )


def _conv(cls: type[YatConv]) -> Callable[[Any], YatConv]:
    def build(m: Any) -> YatConv:
        drops = bool(m.use_dropconnect)
        return cls(
            m.in_channels,
            # A tied layer of 0.2.24 keeps the size of its kernel bank in out_channels.
            m._actual_out_channels,
            m.kernel_size,
            m.stride,
            m.padding,
            m.dilation,
            m.groups,
            padding_mode=m.padding_mode,
            use_alpha=m.alpha is not None,
            use_dropconnect=drops,
            drop_rate=m.drop_rate if drops else 0.0,
            mask=m.mask,
            dtype=m.compute_dtype,
            **_shared_options(m),
        )

    return build


def _shared_options(m: Any) -> dict[str, Any]:
    """Read what all layers have; 0.2.24 has no constant, softplus or scalar bias, nor learned ε."""
    return {
        "bias": m.bias is not None,
        "constant_bias": _constant_bias(m),
        "softplus_bias": getattr(m, "softplus_bias", False),
        "scalar_bias": getattr(m, "scalar_bias", False),
        "constant_alpha": m._constant_alpha_value,
        "epsilon": m.epsilon,
        "learnable_epsilon": getattr(m, "epsilon_param", None) is not None,
        "weight_normalized": m.weight_normalized,
        # The parameters are replaced later, so they need no memory and no random numbers.
        "device": "meta",
    }


def _constant_bias(m: Any) -> float | None:
    """Return the constant bias, rounded to the dtype of the tensor that nmn makes of it."""
    value = getattr(m, "_constant_bias_value", None)
    if value is None:
        return None
    return torch.tensor(value, dtype=m.param_dtype or m.weight.dtype).item()


_BUILDERS: dict[str, Callable[[Any], YatLayer]] = {
    "YatNMN": _dense,
    "YatConv1D": _conv(YatConv1d),
    "YatConv2D": _conv(YatConv2d),
    "YatConv3D": _conv(YatConv3d),
}


def _refuse_bank_sized_bias(layer: YatLayer, who: str) -> None:
    """Refuse the bias of a tied convolution of early releases, whose forward pass fails in nmn."""
    if layer.bias is not None and layer.bias.numel() not in (1, layer.out_count):
        raise NmnExportError(
            "a bias must have one entry, or one per output",
            got=f"{who}, with {layer.bias.numel()} for {layer.out_count} outputs",
            fix="Build it with bias=False or without kernel_bank_size; in nmn before 0.3.3 its "
            "forward fails as it is.",
        )


def _refuse_vanishing_filters(layer: YatLayer, who: str) -> None:
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
