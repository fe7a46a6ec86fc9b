"""Inputs of a file: their shapes and dtypes, checks of given arrays, and random arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx

from nmn_export.errors import NmnExportError
from nmn_export.graph.file import example_shapes, invalid_example_shapes
from nmn_export.runtime.arrays import Arrays


def is_floating(dtype: "np.dtype[np.generic]") -> bool:
    """Whether a dtype is a floating one, bfloat16 included."""
    return dtype.kind == "f" or dtype == ml_dtypes.bfloat16


@dataclass(frozen=True)
class Input:
    """One input of a file.

    Attributes:
        name: Its name in the graph.
        shape: Its sizes; a dynamic size is a name.
        dtype: Dtype of its elements.
        example: A shape that the model is known to take.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: "np.dtype[np.generic]"
    example: tuple[int, ...]

    @property
    def floating(self) -> bool:
        """Whether its elements are floating-point numbers, not integers or booleans."""
        return is_floating(self.dtype)


def inputs_of(model: onnx.ModelProto) -> list[Input]:
    """Return the inputs of a model. Dynamic sizes have the example of the export, or 2."""
    examples = example_shapes(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = []
    for value in model.graph.input:
        if value.name in weights:
            continue
        shape = _shape(value)
        sizes = [d if isinstance(d, int) else 2 for d in shape]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        example = tuple(examples.get(value.name, sizes))
        if len(example) != len(shape):
            got = f"{len(example)} sizes for '{value.name}', which has {len(shape)}"
            raise invalid_example_shapes(got)
        inputs.append(Input(value.name, shape, dtype, example))
    return inputs


def draw(inputs: Sequence[Input], seed: int) -> Arrays:
    """Draw arrays of the example shapes: standard normal numbers, zeros and ones for integers."""
    rng = np.random.default_rng(seed)
    drawn: Arrays = {}
    for value in inputs:
        if value.floating:
            numbers = rng.standard_normal(value.example, dtype=np.float32)
            drawn[value.name] = numbers.astype(value.dtype)
        else:
            drawn[value.name] = rng.integers(0, 2, value.example).astype(value.dtype)
    return drawn


def check(inputs: Sequence[Input], arrays: Arrays) -> None:
    """Check arrays against the inputs of a file.

    Raises:
        NmnExportError: An array is missing, unknown, or of another shape or dtype.
    """
    if {value.name for value in inputs} != set(arrays):
        raise NmnExportError(
            f"The model's inputs are {', '.join(value.name for value in inputs)}",
            got=", ".join(arrays) or "none",
            fix="Use these names.",
        )
    for value in inputs:
        array = arrays[value.name]
        if len(value.shape) != array.ndim or any(
            isinstance(d, int) and d != got for d, got in zip(value.shape, array.shape, strict=True)
        ):
            raise NmnExportError(
                f"Input '{value.name}' has shape {'x'.join(map(str, value.shape)) or 'scalar'}",
                got="x".join(map(str, array.shape)) or "a scalar",
                fix="Reshape it, or export with other --input or --dynamic.",
            )
        if array.dtype != value.dtype:
            raise NmnExportError(
                f"Input '{value.name}' has dtype {value.dtype}",
                got=array.dtype,
                fix=f"Use astype('{value.dtype}').",
            )


def to_dtypes(inputs: Sequence[Input], arrays: Arrays) -> Arrays:
    """Convert float32 arrays to bfloat16 for inputs of that dtype: NumPy files cannot hold it."""
    narrow = {value.name for value in inputs if value.dtype == ml_dtypes.bfloat16}
    return {
        name: array.astype(ml_dtypes.bfloat16)
        if name in narrow and array.dtype == np.float32
        else array
        for name, array in arrays.items()
    }


def draw_inputs(model: onnx.ModelProto, seed: int) -> Arrays:
    """Draw inputs of a model; see `draw`."""
    return draw(inputs_of(model), seed)


def check_inputs(model: onnx.ModelProto, inputs: Arrays) -> None:
    """Check arrays against the inputs of a model; see `check`."""
    check(inputs_of(model), inputs)


def to_model_dtypes(model: onnx.ModelProto, inputs: Arrays) -> Arrays:
    """Convert arrays to bfloat16 for inputs of that dtype; see `to_dtypes`."""
    return to_dtypes(inputs_of(model), inputs)


def _shape(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in dims)
