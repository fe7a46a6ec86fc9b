"""Rebuild a network with our layers in place of foreign ones, around the very same tensors."""

import copy
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from nmn_export.adapt.nmn_torch import layer_from_nmn_torch

_OWN_TENSORS_AND_CHILDREN = ("_parameters", "_buffers", "_modules")


def adapt(model: nn.Module) -> nn.Module:
    """Return the network of our layers that computes what `model` does.

    Every layer of `nmn.torch` (releases 0.2.24 and 0.3.5, and those between) is replaced by ours,
    wherever it sits and however often it is used; the network may also be one such layer. All the
    rest is copied as `copy.deepcopy` would, except that no tensor is: parameters, buffers and other
    tensors are those of `model`, which stays as it was. So training either network trains both,
    and `.to()` or `.half()` on one converts the parameters of the other too. Hooks and the training
    mode come along. As with any copy, a closure that captured a module of `model` still means that
    one.

    In eval mode the two agree to float32 rounding, with two exceptions. Layers of releases before
    0.3.3 compute float16 and bfloat16 in themselves where ours accumulate in float32. And in those
    releases convolutions do not clamp the squared distance at zero, which shows only where a patch
    all but equals a filter.

    `YatEmbed` stays as it is: its `forward` is a plain lookup, and its `attend` computes the
    ⵟ-product in standard operations.

    Args:
        model: Any network; one without anything to replace is returned itself.

    Raises:
        NmnExportError: A layer, or an option of it, has no equal among ours. The message names the
            layer, its place in the network, and what to do.
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
    """Yield what `model` is made of, each once with its place, as in `layers.0.conv`.

    Attributes and plain containers are searched too: a list of layers need not be a `ModuleList`.
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
    """Return what a module or a container holds, each with its place."""
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
