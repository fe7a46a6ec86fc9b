"""Example inputs, as a user gives them and as the exporter needs them."""

import inspect
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nmn_export.errors import NmnExportError

ExampleInputs = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


def named(model: nn.Module, inputs: ExampleInputs, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Return the example inputs by name, and in the dtype of the export."""
    if isinstance(inputs, Tensor):
        inputs = (inputs,)
    if not isinstance(inputs, Mapping):
        arguments = list(inspect.signature(model.forward).parameters)
        names = (
            arguments if len(arguments) >= len(inputs) else [f"x{i}" for i in range(len(inputs))]
        )
        inputs = dict(zip(names, inputs, strict=False))
    return {
        name: t.to(dtype) if dtype is not None and t.is_floating_point() else t
        for name, t in inputs.items()
    }


def size_name(name: str, axis: int, size: object) -> str:
    """Return the name of a size: a string, that of a `Dim`, or one made up for `Dim.DYNAMIC`."""
    return size if isinstance(size, str) else str(getattr(size, "__name__", f"{name}_{axis}"))


def try_on(model: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    """Call the model once, so that inputs it does not take are not a matter of the exporter's."""
    try:
        with torch.inference_mode():
            model(*inputs.values())
    except NmnExportError:
        raise
    except Exception as error:
        given = ", ".join(f"{name} {tuple(t.shape)}" for name, t in inputs.items())
        raise NmnExportError(
            "The model must run on the example inputs",
            got=f"{given}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            fix="Give inputs of the shapes and dtypes it takes (--input NAME:2x3x224x224).",
        ) from error
