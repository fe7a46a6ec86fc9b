"""Conversion of the layers of `nmn.torch` to ours.

The layers are recognised by the module and name of their class, so `nmn` is never imported. Each
kind of layer has its own file, whose `ADAPTERS` are entered in the table here.
"""

import itertools
from typing import Any

from torch import Tensor, nn

from nmn_export.adapt import attention, conv, conv_transpose, dense, embed, legacy
from nmn_export.adapt.adapter import Adapter
from nmn_export.errors import NmnExportError
from nmn_export.layers.folded import copy_hooks

_PACKAGE = "nmn.torch"
_EXAMPLES = "nmn.torch.examples"

_ADAPTERS: dict[str, Adapter] = (
    dense.ADAPTERS | conv.ADAPTERS | conv_transpose.ADAPTERS | attention.ADAPTERS | embed.ADAPTERS
)
"""By name of the class."""

_DESCRIPTIONS = {"lazy", "tie_kernel_bank", "kernel_bank_size", "kernel_bank_id", "positive_init"}
"""Attributes that describe how the parameters came about, and do not change the computation."""

_HARMLESS_OVERRIDES = ("_compiled_call_impl", "extra_repr", "reset_parameters")


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
    if cls is None:
        return None
    who = f"{cls.__name__} at '{place}'" if place else f"{cls.__name__}, the model itself"
    adapters = legacy.ADAPTERS if _is_legacy(module, cls) else _ADAPTERS
    if cls.__name__ not in adapters:
        _refuse_legacy(adapters, who)
        if not (module._parameters or module._buffers):
            return None  # It only holds other modules, which are visited too.
        raise NmnExportError(
            f"adapt supports {', '.join(adapters)} of {_PACKAGE}",
            got=who,
            fix="Replace it by one of these.",
        )
    adapter = adapters[cls.__name__]
    _refuse_unreadable(module, adapter, cls, who)
    _refuse_changed(module, cls, who)
    return _build(module, adapter, who)


def _nmn_class(module: nn.Module) -> type | None:
    """Return the class of `nmn.torch` that `module` is of, itself or by inheritance."""
    for cls in type(module).__mro__:
        home = f"{cls.__module__}."
        if home.startswith(f"{_PACKAGE}.") and not home.startswith(f"{_EXAMPLES}."):
            return cls
    return None


def _is_legacy(module: nn.Module, cls: type) -> bool:
    """Return whether a layer is of a release that had another formula under the same names."""
    known = {name.lower() for name in _ADAPTERS}
    return cls.__name__.lower() in known and not hasattr(module, "_constant_alpha_value")


def _refuse_legacy(adapters: dict[str, Adapter], who: str) -> None:
    """Refuse a legacy layer that has no adapter."""
    if adapters is legacy.ADAPTERS:
        raise NmnExportError(
            f"adapt supports {', '.join(adapters)} of nmn 0.2.6 and earlier; releases up to 0.2.6 "
            "add the bias after dividing and use alpha as an exponent",
            got=f"{who}, of such a release",
            fix="Rebuild and retrain this part with a later nmn, or export it with "
            "torch.onnx.export, which writes the layer in standard ops.",
        )


def _refuse_unreadable(module: nn.Module, adapter: Adapter, cls: type, who: str) -> None:
    """Refuse a layer whose parameters are computed, or that has more tensors than nmn gives it."""
    computed = [
        name
        for name in adapter.parameters
        if isinstance(getattr(module, name, None), Tensor) and name not in module._parameters
    ]
    if computed:
        raise NmnExportError(
            f"adapt needs the {' and '.join(computed)} of a layer to be a plain parameter",
            got=f"{who}, where a parametrization, pruning or a hook computes it",
            fix="Make it permanent first with torch.nn.utils.parametrize.remove_parametrizations, "
            "torch.nn.utils.remove_weight_norm or torch.nn.utils.prune.remove.",
        )
    known = (adapter.parameters, adapter.buffers, adapter.children)
    held: tuple[dict[str, Any], ...] = (module._parameters, module._buffers, module._modules)
    unknown = [
        name
        for names, found in zip(known, held, strict=True)
        for name, value in found.items()
        if value is not None and name not in names
    ]
    if unknown:
        raise NmnExportError(
            f"adapt supports a {cls.__name__} that has {', '.join(itertools.chain(*known))} only",
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


def _build(module: nn.Module, adapter: Adapter, who: str) -> nn.Module:
    """Return our layer with the options, parameters, hooks and mode of `module`."""
    try:
        layer = adapter.build(module)
    except AttributeError as error:
        raise NmnExportError(
            "adapt needs the attributes that layers of nmn have",
            got=f"{who}, without {error.name}",
            fix="Build it with the installed nmn and load a state_dict, instead of a whole module.",
        ) from error
    except NmnExportError as error:
        raise NmnExportError(
            "adapt needs options that our layers support", got=who, fix=str(error)
        ) from error
    for name in adapter.parameters:
        layer.register_parameter(name, module._parameters.get(name))
    copy_hooks(module, layer)
    layer.training = module.training
    for name in _DESCRIPTIONS & vars(module).keys():
        setattr(layer, name, getattr(module, name))
    if adapter.check is not None:
        adapter.check(layer, who)
    return layer
