"""Inputs of an ONNX model: what it takes, whether given arrays fit, and arrays that do."""

import json

import numpy as np
import onnx

from nmn_export.errors import NmnExportError
from nmn_export.graph.file import METADATA_PREFIX
from nmn_export.runtime.arrays import Arrays

EXAMPLE_SHAPES = METADATA_PREFIX + "example_shapes"
"""Metadata key of the shapes that the model was exported with: sizes it is known to take."""


def draw_inputs(model: onnx.ModelProto, seed: int) -> Arrays:
    """Draw inputs: standard normal numbers, or zeros and ones for an integer input.

    An axis that varies has the size it was exported with, or else 2.
    """
    rng = np.random.default_rng(seed)
    stored = next((p.value for p in model.metadata_props if p.key == EXAMPLE_SHAPES), "{}")
    examples: dict[str, list[int]] = json.loads(stored)
    drawn: Arrays = {}
    for value in model.graph.input:
        sizes = [d if isinstance(d, int) else 2 for d in _shape(value)]
        shape = examples.get(value.name, sizes)
        dtype = _dtype(value)
        if onnx.helper.np_dtype_to_tensor_dtype(dtype) in _FLOATING:
            drawn[value.name] = rng.standard_normal(shape, dtype=np.float32).astype(dtype)
        else:
            drawn[value.name] = rng.integers(0, 2, shape).astype(dtype)
    return drawn


def check_inputs(model: onnx.ModelProto, inputs: Arrays) -> None:
    """Say which input is missing, unknown or does not fit.

    Raises:
        NmnExportError: It does not.
    """
    expected = {value.name: value for value in model.graph.input}
    if set(expected) != set(inputs):
        raise NmnExportError(
            f"The model's inputs are {', '.join(expected)}",
            got=", ".join(inputs) or "none",
            fix="Name the arrays so.",
        )
    for name, value in expected.items():
        shape, dtype, array = _shape(value), _dtype(value), inputs[name]
        if len(shape) != array.ndim or any(
            isinstance(d, int) and d != got for d, got in zip(shape, array.shape, strict=True)
        ):
            raise NmnExportError(
                f"Input '{name}' has shape {'x'.join(map(str, shape)) or 'scalar'}",
                got="x".join(map(str, array.shape)) or "a scalar",
                fix="Reshape it, or export with other --input or --dynamic.",
            )
        if array.dtype != dtype:
            raise NmnExportError(
                f"Input '{name}' has dtype {dtype}", got=array.dtype, fix=f"Use astype('{dtype}')."
            )


def to_model_dtypes(model: onnx.ModelProto, inputs: Arrays) -> Arrays:
    """Convert float32 arrays to bfloat16 where the model takes that, which NumPy cannot write."""
    expected = {value.name: _dtype(value) for value in model.graph.input}
    return {
        name: array.astype(expected[name])
        if array.dtype == np.float32 and name in expected and expected[name].name == "bfloat16"
        else array
        for name, array in inputs.items()
    }


_FLOATING = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
}


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    """Return sizes, or the name of a size that varies."""
    dims = value.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in dims]


def _dtype(value: onnx.ValueInfoProto) -> "np.dtype[np.generic]":
    return onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
