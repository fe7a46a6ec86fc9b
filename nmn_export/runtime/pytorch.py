"""PyTorch: eagerly, as the model is, and in float64 with exact distances, which is the truth."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nmn_export.errors import NmnExportError
from nmn_export.graph.names import output_names
from nmn_export.ops import OPS
from nmn_export.runtime.arrays import Arrays, to_numpy, to_torch


class EagerRunner:
    """A folded module in eager PyTorch.

    Args:
        model: Module in eval mode; takes the inputs in the order they are given.
    """

    name = "pytorch eager"

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs, named as the exporter names them."""
        return _run(self._model, inputs, lambda t: t)


class TruthRunner:
    """A folded module in float64, with ‖x − w‖² summed from the differences.

    Args:
        model: Module in eval mode; takes the inputs in the order they are given.
    """

    name = "float64 truth"

    def __init__(self, model: nn.Module) -> None:
        self._model = copy.deepcopy(model).double()

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs in float64, named as the exporter names them."""
        with _ExactOps():
            return _run(self._model, inputs, lambda t: t.double() if t.is_floating_point() else t)


_EXACT = {spec.torch_op: spec.exact for spec in OPS.values()}


class _ExactOps(TorchDispatchMode):
    """Replaces every ⵟ op by its exact form while it is active."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        return _EXACT.get(func, func)(*args, **(kwargs or {}))


def _run(model: nn.Module, inputs: Arrays, convert: Callable[[Tensor], Tensor]) -> Arrays:
    try:
        with torch.inference_mode():
            result = model(*(convert(to_torch(array)) for array in inputs.values()))
    except NmnExportError:
        raise
    except Exception as error:
        # The model is the user's code, which may raise anything.
        given = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise NmnExportError(
            "The reference must run on the inputs",
            got=f"{given}: {why}",
            fix="Give others with --inputs, or name the model that the file was exported from.",
        ) from error
    leaves = [t for t in torch.utils._pytree.tree_leaves(result) if isinstance(t, Tensor)]
    return dict(zip(output_names(len(leaves)), map(to_numpy, leaves), strict=True))
