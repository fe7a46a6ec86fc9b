"""Copy a network with our layers in place of others, around the same tensors."""

import copy
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from nmn_export.adapt.nmn_torch import layer_from_nmn_torch

_OWN_TENSORS_AND_CHILDREN = ("_parameters", "_buffers", "_modules")


def adapt(model: nn.Module) -> nn.Module:
    """Return the network of our layers that computes what `model` does.

    Each layer of `nmn.torch` is replaced by ours, wherever it is in the network and however often
    it is used. The network may itself be such a layer. Everything else is copied as `copy.deepcopy`
    does, except tensors: both networks share all parameters, buffers and other tensors. So training
    one network trains both, and `.to()` or `.half()` on one converts the parameters of both. Hooks
    and the training mode are kept. As with any copy, a closure that captured a module of `model`
    still refers to that module.

    In eval mode both networks agree to float32 rounding, for all releases up to 0.3.5. Those up to
    0.2.6 had another formula, which is recognised. There are three exceptions. Layers of releases
    before 0.3.3 compute float16 and bfloat16 in that dtype, while ours accumulate in float32. These
    releases do not clamp the squared distance at zero, except in `YatNMN` and in attention from
    0.2.20 on. This matters only if an input nearly equals a weight. Their attention gives NaN for a
    query that sees no key, while ours gives zeros, as later releases do.

    Args:
        model: Any network. If there is nothing to replace, it is returned itself.

    Raises:
        NmnExportError: A layer or one of its options is not supported. The message names the layer,
            its place in the network, and what to do.
    """
    memo: dict[int, Any] = {}
    adapted_any = False
    for place, value in _modules_and_tensors(model):
        if isinstance(value, Tensor):
            memo[id(value)] = value
        elif (layer := layer_from_nmn_torch(value, place)) is not None:
            memo[id(value)] = layer
            adapted_any = True
    return copy.deepcopy(model, memo) if adapted_any else model


def _modules_and_tensors(model: nn.Module) -> Iterator[tuple[str, nn.Module | Tensor]]:
    """Yield the modules and tensors of `model`, each once with its place, as in `layers.0.conv`.

    Attributes and plain containers are searched too, because a list of layers may not be a
    `ModuleList`.
    """
    seen: set[int] = set()
    pending: list[tuple[str, Any]] = [("", model)]
    while pending:
        place, value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module | Tensor):
            yield place, value
        pending.extend(reversed(_parts(place, value)))


def _parts(place: str, value: Any) -> list[tuple[str, Any]]:
    """Return the parts of a module or a container, each with its place."""
    if isinstance(value, nn.Module):
        held: dict[str, Any] = {}
        for name, attribute in vars(value).items():
            held |= attribute if name in _OWN_TENSORS_AND_CHILDREN else {name: attribute}
        prefix = f"{place}." if place else ""
        return [(prefix + name, part) for name, part in held.items()]
    if isinstance(value, dict):
        return [(f"{place}[{key!r}]", part) for key, part in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [(f"{place}[{i}]", part) for i, part in enumerate(value)]
    return []
