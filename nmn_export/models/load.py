"""Build a model and load its weights, from names on the command line."""

import difflib
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nmn_export.errors import NmnExportError
from nmn_export.models.zoo import ZOO

_T = TypeVar("_T")

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys of the weights in checkpoints that also hold other data."""


def load_model(source: str, weights: Path | None = None) -> nn.Module:
    """Build a model and load its weights. Without weights, they are initialised with seed 0.

    Args:
        source: A name from the zoo, `package.module:factory` or `path/file.py:factory`. A factory
            is a module, or a function without arguments that returns one.
        weights: A `.safetensors` file, or one that `torch.load` reads without unpickling objects.

    Raises:
        NmnExportError: There is no such model, it cannot be built, or the weights do not fit.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)  # so that a later check builds the model that was exported
        model = _build(source)
    if weights is not None:
        _load_weights(model, _read(weights), weights)
    return model


def _build(source: str) -> nn.Module:
    if source in ZOO:
        return ZOO[source].build()
    module_name, colon, factory_name = source.rpartition(":")
    if not colon:
        near = difflib.get_close_matches(source, ZOO, n=3, cutoff=0.4) or sorted(ZOO)
        raise NmnExportError(
            "A model is a name from the zoo, package.module:factory or path/file.py:factory",
            got=f"'{source}'",
            fix=f"Did you mean {' or '.join(near)}?",
        )
    module = _import(module_name)
    factory: Any = getattr(module, factory_name, None)
    if factory is None:
        near = difflib.get_close_matches(factory_name, dir(module), n=3)
        raise NmnExportError(
            f"'{module_name}' must define '{factory_name}'",
            got="no such name",
            fix=f"Did you mean {' or '.join(near)}?" if near else "Check its spelling.",
        )
    model: Any = factory
    if callable(factory) and not isinstance(factory, nn.Module):
        model = _guarded(factory, f"'{source}' must be callable without arguments")
    if not isinstance(model, nn.Module):
        raise NmnExportError(
            f"'{source}' must be or return a torch.nn.Module",
            got=type(model).__name__,
            fix="Name a factory that does.",
        )
    return model


def _import(name: str) -> ModuleType:
    path = Path(name)
    if path.suffix != ".py":
        return _guarded(lambda: importlib.import_module(name), f"'{name}' must be importable")
    if not path.is_file():
        raise NmnExportError(
            "The model's file must exist", got=f"no file '{path}'", fix="Check the path."
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    loader = spec.loader
    _guarded(lambda: loader.exec_module(module), f"'{path}' must be importable")
    return module


def _guarded(call: Callable[[], _T], rule: str) -> _T:
    """Run code of the user, and report its errors in one line."""
    try:
        return call()
    except NmnExportError:
        raise
    except Exception as error:
        raise NmnExportError(
            rule, got=f"{type(error).__name__}: {error}", fix="Run it alone to see where."
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    """Read a state dict without executing anything in it."""
    if not path.is_file():
        raise NmnExportError(
            "The weights must be a file", got=f"no file '{path}'", fix="Check the path."
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # about pickle protocols; errors matter, warnings do not
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a corrupt file can make a reader raise anything
        raise NmnExportError(
            "The weights must be a .safetensors file or a state dict saved by torch.save",
            got=f"'{path}', which cannot be read ({type(error).__name__})",
            fix="Save them with torch.save(model.state_dict(), path). Pickled objects are not run.",
        ) from error
    for key in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise NmnExportError(
            "The weights must be a state dict: tensors by name",
            got=f"{type(state).__name__} in '{path}'",
            fix="Save them with torch.save(model.state_dict(), path).",
        )
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _load_weights(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    shared = own.keys() & state.keys()
    faults = {
        "missing": sorted(own.keys() - state.keys()),
        "unknown": sorted(state.keys() - own.keys()),
        "of another shape": sorted(
            f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
            for name in shared
            if state[name].shape != own[name].shape
        ),
    }
    problems = [
        f"{kind}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for kind, names in faults.items()
        if names
    ]
    if problems:
        raise NmnExportError(
            f"The weights in '{path}' must fit the model",
            got="; ".join(problems),
            fix="Name the model that they were trained with, with the same options.",
        )
    model.load_state_dict(state)
