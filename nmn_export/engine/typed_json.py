"""Convert JSON values to dataclasses, and check every value against its declared type."""

import dataclasses
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def revive(kind: Any, value: Any, where: str = "it") -> Any:
    """Convert a JSON value to its declared type.

    Args:
        kind: A dataclass, a list, a dict with string keys, `X | None`, a literal, or a JSON type.
        value: The JSON value.
        where: The name of the value in an error message.

    Raises:
        TypeError: The value has another type. The message contains its name.
    """
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _union(arguments, value, where)
    if origin is Literal:
        fits = isinstance(value, str) and value in arguments
    else:
        fits = type(value) is (origin or kind)  # so that True is not a number
    if not fits:
        raise TypeError(f"{where} is {_written(value)}")
    if origin is list:
        return [revive(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    if origin is dict:
        return {key: revive(arguments[1], v, f"{where}.{key}") for key, v in value.items()}
    return value


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    if type(value) is not dict:
        raise TypeError(f"{where} is {_written(value)}")
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if unknown := sorted(value.keys() - fields.keys()):
        raise TypeError(f"{where} has '{unknown[0]}'")
    missing = [
        name
        for name, field in fields.items()
        if name not in value
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise TypeError(f"{where} lacks '{missing[0]}'")
    prefix = "" if where == "it" else f"{where}."
    return kind(**{key: revive(hints[key], v, f"{prefix}{key}") for key, v in value.items()})


def _union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    (kind,) = (kind for kind in kinds if kind is not type(None))
    return revive(kind, value, where)


def _written(value: object) -> str:
    """Return a value as text, shortened if it is long."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
