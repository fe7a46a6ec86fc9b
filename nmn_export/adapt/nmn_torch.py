"""Conversion of the layers of `nmn.torch` to ours.

The layers are recognised by the module and name of their class, so `nmn` is never imported. Each
kind of layer has its own file, whose `ADAPTERS` are entered in the table here.
"""

from torch import Tensor, nn

from nmn_export.adapt import conv, conv_transpose, dense
from nmn_export.adapt.adapter import Adapter
from nmn_export.errors import NmnExportError
from nmn_export.layers.folded import copy_hooks

_PACKAGE = "nmn.torch"
_EXAMPLES = "nmn.torch.examples"

_ADAPTERS: dict[str, Adapter] = dense.ADAPTERS | conv.ADAPTERS | conv_transpose.ADAPTERS
"""By name of the class."""

_LEFT_ALONE = ("YatEmbed",)

_NO_OP_YET = {
    "MultiHeadYatAttention": "Use nn.MultiheadAttention instead, or export this part with "
    "torch.onnx.export, which writes the layer in standard ops.",
}

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
    if cls is None or cls.__name__ in _LEFT_ALONE:
        return None
    who = f"{cls.__name__} at '{place}'" if place else f"{cls.__name__}, the model itself"
    _refuse_legacy(module, cls, who)
    if cls.__name__ not in _ADAPTERS:
        if cls.__name__ not in _NO_OP_YET and not (module._parameters or module._buffers):
            return None  # It only holds other modules, which are visited too.
        raise NmnExportError(
            f"adapt supports {', '.join(_ADAPTERS)} of {_PACKAGE}",
            got=who,
            fix=_NO_OP_YET.get(cls.__name__, "Replace it by one of these."),
        )
    adapter = _ADAPTERS[cls.__name__]
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


def _refuse_legacy(module: nn.Module, cls: type, who: str) -> None:
    """Refuse a layer of a release that had another formula under the same names."""
    known = {name.lower() for name in (*_ADAPTERS, *_NO_OP_YET)}
    if cls.__name__.lower() in known and not hasattr(module, "_constant_alpha_value"):
        raise NmnExportError(
            "adapt supports layers of nmn 0.2.24 to 0.3.5; those up to 0.2.6 add the bias after "
            "dividing and use alpha as an exponent",
            got=f"{who}, of such a release",
            fix="Rebuild and retrain the network with a later nmn.",
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
    parameters, buffers = adapter.parameters, adapter.buffers
    unknown = [
        name
        for tensors, known in ((module._parameters, parameters), (module._buffers, buffers))
        for name, tensor in tensors.items()
        if tensor is not None and name not in known
    ] + list(module._modules)
    if unknown:
        raise NmnExportError(
            f"adapt supports a {cls.__name__} that has {', '.join(parameters + buffers)} only",
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
