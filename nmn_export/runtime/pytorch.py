"""PyTorch: the model in eager mode, and in float64 with exact distances, which is the truth."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nmn_export.errors import NmnExportError
from nmn_export.graph.arguments import bind
from nmn_export.graph.names import output_names
from nmn_export.ops import OPS
from nmn_export.runtime.arrays import Arrays, to_numpy, to_torch


class EagerRunner:
    """A folded module in eager PyTorch.

    Args:
        model: Module in eval mode.
    """

    name = "pytorch eager"

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs for inputs by name of argument, named as the exporter names them."""
        return _run(self._model, inputs, lambda t: t)


class TruthRunner:
    """A folded module in float64, with ‖x − w‖² summed from the differences.

    Args:
        model: Module in eval mode.
    """

    name = "float64 truth"

    def __init__(self, model: nn.Module) -> None:
        self._model = copy.deepcopy(model).double()

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs in float64, named as the exporter names them."""
        return self.run_displaced(inputs, 0.0)

    def run_displaced(self, inputs: Arrays, displacement: float) -> Arrays:
        """Return the outputs if every squared distance is off by a share of its terms.

        Args:
            inputs: As for `run`.
            displacement: What is added to ‖x − w‖², as a multiple of ‖x‖² + ‖w‖². Rounding in the
                expansion ‖x‖² + ‖w‖² − 2⟨x, w⟩ has the same effect.
        """
        with _ExactOps(displacement):
            return _run(self._model, inputs, lambda t: t.double() if t.is_floating_point() else t)


_EXACT = {spec.torch_op: spec.exact for spec in OPS.values()}


class _ExactOps(TorchDispatchMode):
    """Replaces every ⵟ op by its exact form while it is active.

    Args:
        displacement: As in `TruthRunner.run_displaced`.
    """

    def __init__(self, displacement: float) -> None:
        super().__init__()
        self._displacement = displacement

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        if func in _EXACT:
            return _EXACT[func](*args, **kwargs, displacement=self._displacement)
        return func(*args, **kwargs)


def _run(model: nn.Module, inputs: Arrays, convert: Callable[[Tensor], Tensor]) -> Arrays:
    arguments = bind(model, {name: convert(to_torch(array)) for name, array in inputs.items()})
    try:
        with torch.inference_mode():
            result = model(*arguments.positional, **arguments.keyword)
    except NmnExportError:
        raise
    except Exception as error:
        # The model is the user's code, which can raise anything.
        given = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise NmnExportError(
            "The reference must run on the inputs",
            got=f"{given}: {why}",
            fix="Give others with --inputs, or name the model that the file was exported from.",
        ) from error
    leaves = [t for t in torch.utils._pytree.tree_leaves(result) if isinstance(t, Tensor)]
    return dict(zip(output_names(len(leaves)), map(to_numpy, leaves), strict=True))
