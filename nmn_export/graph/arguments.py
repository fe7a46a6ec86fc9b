"""Inputs by name, bound to the arguments of a module's `forward`."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import nn

from nmn_export.errors import NmnExportError

_T = TypeVar("_T")

_BY_NAME = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


@dataclass(frozen=True)
class Arguments(Generic[_T]):
    """The arguments of one call of a module.

    Attributes:
        positional: Values that `forward` takes by position only: those of `*args`, of parameters
            before a `/`, and of `nn.Sequential`.
        keyword: All other values, by the names of their parameters, in the order of the signature.
        names: Names of the inputs in the order of `positional`, then of `keyword`.
    """

    positional: tuple[_T, ...]
    keyword: dict[str, _T]
    names: tuple[str, ...]

    def by_parameter(self, model: nn.Module) -> dict[str, Any]:
        """Return the values by parameter of `forward`; those of `*args` are a tuple."""
        signature = inspect.signature(model.forward)
        return dict(signature.bind(*self.positional, **self.keyword).arguments)


def bind(model: nn.Module, inputs: Mapping[str, _T]) -> Arguments[_T]:
    """Bind inputs to the arguments of `forward` that have their names.

    The arguments of `*args` and of `nn.Sequential` have no name that a user could know. They take
    inputs of any name, in the given order.

    Args:
        model: Module to call.
        inputs: Values by name, in any order.

    Raises:
        NmnExportError: `forward` has no argument of such a name, or an argument without a default
            has no value.
    """
    parameters = list(inspect.signature(model.forward).parameters.values())
    if type(model).forward is nn.Sequential.forward and len(inputs) == 1:
        return Arguments(tuple(inputs.values()), {}, tuple(inputs))
    takes_any = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
    declared = {p.name: p for p in parameters if p.kind in _BY_NAME}
    positional_only = [p for p in parameters if p.kind is inspect.Parameter.POSITIONAL_ONLY]
    known = [*(p.name for p in positional_only), *declared]
    unknown = [name for name in inputs if name not in known]
    required = [
        p.name
        for p in (*positional_only, *declared.values())
        if p.default is inspect.Parameter.empty
    ]
    missing = [name for name in required if name not in inputs]
    if missing or (unknown and not takes_any):
        raise NmnExportError(
            f"Inputs have the names of the model's arguments: {', '.join(known) or 'none'}",
            got=", ".join(inputs) or "none",
            fix=f"Rename {', '.join(unknown)}." if unknown else f"Add {', '.join(missing)}.",
        )
    leading = [p.name for p in positional_only if p.name in inputs]
    if takes_any:
        # Python fills *args only after every parameter before it has a value by position.
        before = [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        leading += [name for name in before if name in inputs] + unknown
    keyword = {name: inputs[name] for name in declared if name in inputs and name not in leading}
    return Arguments(tuple(inputs[name] for name in leading), keyword, (*leading, *keyword))
