"""Example inputs and dynamic axes: the forms that users give, and the one that `capture` takes."""

import inspect
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nmn_export.errors import NmnExportError
from nmn_export.graph.arguments import bind
from nmn_export.graph.capture import DynamicAxes

ExampleInputs = Tensor | Sequence[Tensor | None] | Mapping[str, Tensor | None]
"""A tensor, tensors in the order of the arguments, or tensors by name. `None` leaves one out."""

AxisSizes = Mapping[int, object] | Sequence[object] | None
"""The dynamic axes of one input: sizes by axis, one entry per axis, a list of axes, or none."""

DynamicShapes = Mapping[str, AxisSizes] | Sequence[AxisSizes] | None
"""Dynamic axes by name of input, or one entry per input in the order of the inputs."""


def check_model(model: object) -> nn.Module:
    """Return the model, if it is a module whose parameters and buffers have values.

    Raises:
        NmnExportError: It is not a module, or a TorchScript module, or has tensors on the meta
            device.
    """
    if not isinstance(model, nn.Module):
        raise NmnExportError(
            "The model must be a torch.nn.Module",
            got=f"{getattr(model, '__name__', '')} ({type(model).__name__})".strip(),
            fix="Call the function that makes it, or put the computation into a module's forward.",
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise NmnExportError(
            "The model must be a module that torch.export can trace",
            got="a TorchScript module",
            fix="Use the module that it was made from.",
        )
    meta = [name for name, t in (*model.named_parameters(), *model.named_buffers()) if t.is_meta]
    if meta:
        raise NmnExportError(
            "Parameters and buffers must have values",
            got=f"tensors on the meta device: {', '.join(meta[:5])}{' …' if meta[5:] else ''}",
            fix="Call model.to_empty(device='cpu') and load the weights.",
        )
    return model


def parse_example(
    model: nn.Module, inputs: ExampleInputs, shapes: DynamicShapes, dtype: torch.dtype | None
) -> tuple[dict[str, Tensor], DynamicAxes]:
    """Return the example inputs and their dynamic axes by name, in the order of the arguments.

    Args:
        model: Module that takes the inputs.
        inputs: As the user gives them.
        shapes: Dynamic axes by name of input, or one entry per input in the order of `inputs`. An
            entry has one of the forms of PyTorch: `{0: "batch"}`, `{0: Dim("batch")}`,
            `(Dim("batch"), None)` with one item per axis, or `[0, 2]`, a list of axes. `None`,
            `Dim.STATIC` and numbers stand for fixed sizes.
        dtype: Inputs of a floating dtype are converted to this one, if any.

    Raises:
        NmnExportError: Something else than tensors was given, a tensor is on the meta device, the
            names are not those of the model's arguments, or the axes have none of these forms.
    """
    given = _by_name(model, inputs)
    if not all(isinstance(name, str) and name for name in given):
        raise NmnExportError(
            "Input names must be strings that are not empty",
            got=", ".join(map(repr, given)),
            fix="Use the names of the model's arguments.",
        )
    tensors = {name: _checked(name, t) for name, t in given.items() if t is not None}
    if dtype is not None:
        tensors = {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}
    tensors = {name: tensors[name] for name in bind(model, tensors).names}
    return tensors, _dynamic_axes(shapes, list(given), tensors)


def _by_name(model: nn.Module, inputs: ExampleInputs) -> Mapping[str, Tensor | None]:
    if isinstance(inputs, Mapping):
        return inputs
    if isinstance(inputs, Tensor):
        inputs = (inputs,)
    if not isinstance(inputs, Sequence) or isinstance(inputs, str):
        raise _not_inputs(type(inputs).__name__)
    parameters = inspect.signature(model.forward).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        names += [f"x{i}" for i in range(len(names), len(inputs))]
    if len(inputs) > len(names):
        raise NmnExportError(
            f"The model takes {len(names)} inputs: {', '.join(names) or 'none'}",
            got=len(inputs),
            fix="Leave some out, or name them.",
        )
    return dict(zip(names, inputs, strict=False))


def _checked(name: str, value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise _not_inputs(f"{type(value).__name__} for '{name}'")
    if value.is_meta:
        raise NmnExportError(
            "Example inputs must have values",
            got=f"a tensor on the meta device for '{name}'",
            fix="Use torch.randn of the same shape, for example.",
        )
    return value


def _not_inputs(got: str) -> NmnExportError:
    return NmnExportError(
        "Example inputs are a tensor, a tuple of tensors, or tensors by name",
        got=got,
        fix="Use torch.from_numpy for an array.",
    )


def _dynamic_axes(
    shapes: DynamicShapes, order: Sequence[str], inputs: Mapping[str, Tensor]
) -> DynamicAxes:
    """Return the dynamic axes of each input and the names of their sizes.

    Args:
        shapes: As in `parse_example`.
        order: Names of the inputs as the user gives them, those that are `None` included.
        inputs: The tensors.
    """
    if shapes is None:
        return {}
    if not isinstance(shapes, Mapping):
        if not isinstance(shapes, Sequence) or isinstance(shapes, str):
            raise _not_axes(type(shapes).__name__)
        if len(shapes) != len(order):
            raise _not_axes(f"{len(shapes)} entries for {len(order)} inputs")
        shapes = dict(zip(order, shapes, strict=True))
    axes = {
        name: {
            axis: _size_name(name, axis, size)
            for axis, size in _sizes(name, sizes, inputs.get(name)).items()
            if not _is_fixed(size)
        }
        for name, sizes in shapes.items()
    }
    return {name: sizes for name, sizes in axes.items() if sizes or name not in order}


def _sizes(name: str, sizes: AxisSizes, tensor: Tensor | None) -> Mapping[int, object]:
    """Return the sizes of one input by axis."""
    if sizes is None:
        return {}
    if isinstance(sizes, Mapping):
        if not all(type(axis) is int for axis in sizes):
            raise _not_axes(f"axes {', '.join(map(repr, sizes))} of '{name}'")
        return sizes
    if not isinstance(sizes, Sequence) or isinstance(sizes, str):
        raise _not_axes(f"{sizes!r} for '{name}'")
    shape = None if tensor is None else tuple(tensor.shape)
    # torch.onnx.export takes lists of axes, and torch.export one size per axis: its own is fixed.
    if all(type(axis) is int for axis in sizes) and tuple(sizes) != shape:
        return {axis: torch.export.Dim.DYNAMIC for axis in sizes if isinstance(axis, int)}
    if shape is not None and len(sizes) != len(shape):
        raise _not_axes(f"{len(sizes)} entries for the {len(shape)} axes of '{name}'")
    return dict(enumerate(sizes))


def _is_fixed(size: object) -> bool:
    return size is None or type(size) is int or size == torch.export.Dim.STATIC


def _size_name(name: str, axis: int, size: object) -> str:
    """Return a string as it is, the name of a `Dim`, or a new name for `Dim.DYNAMIC`."""
    if isinstance(size, str):
        return size
    if type(size) is type(torch.export.Dim.DYNAMIC):
        return f"{name}_{axis}"
    if isinstance(size, torch.export.Dim):
        return str(size.__name__)
    raise _not_axes(f"{size!r} for axis {axis} of '{name}'")


def _not_axes(got: str) -> NmnExportError:
    return NmnExportError(
        "Dynamic axes are given per input, as {0: 'batch'}, [0] or (Dim('batch'), None)",
        got=got,
        fix="Give, for example, dynamic_shapes={'x': {0: 'batch'}}.",
    )


def try_call(model: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    """Call the model once, so that unsuitable inputs are reported before the exporter sees them.

    Raises:
        NmnExportError: The model raised an error.
    """
    arguments = bind(model, inputs)
    try:
        with torch.inference_mode():
            model(*arguments.positional, **arguments.keyword)
    except NmnExportError:
        raise
    except Exception as error:
        given = ", ".join(f"{name} {tuple(t.shape)}" for name, t in inputs.items())
        raise NmnExportError(
            "The model must run on the example inputs",
            got=f"{given}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            fix="Give inputs of the shapes and dtypes it takes (--input NAME:2x3x224x224).",
        ) from error
