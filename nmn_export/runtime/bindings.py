"""The inputs and outputs of an engine: description, checks and tensor addresses."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nmn_export.engine.shapes import ShapeRange
from nmn_export.errors import NmnExportError
from nmn_export.runtime.arrays import to_numpy
from nmn_export.runtime.inputs import Input

_DTYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT64": torch.int64,
    "INT32": torch.int32,
    "INT8": torch.int8,
    "UINT8": torch.uint8,
    "BOOL": torch.bool,
}

_ALIGNMENT = 256
"""Required alignment of tensor addresses in bytes, from TensorRT's headers."""


class Bindings:
    """The inputs and outputs of an engine.

    Args:
        engine: An `ICudaEngine`.

    Attributes:
        inputs: Dtype of each input, by name.
        outputs: Dtype of each output, by name.
        profiles: For each optimization profile, the shapes that it allows, by input.

    Raises:
        NmnExportError: A tensor is not a plain array on the GPU, of a dtype that PyTorch supports.
    """

    def __init__(self, engine: Any) -> None:
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        dtypes = {name: _dtype(engine, name) for name in names}
        modes = {name: engine.get_tensor_mode(name).name for name in names}
        self.inputs = {name: dtypes[name] for name in names if modes[name] == "INPUT"}
        self.outputs = {name: dtypes[name] for name in names if modes[name] == "OUTPUT"}
        self.profiles = tuple(
            {name: _shapes(engine, name, i) for name in self.inputs}
            for i in range(max(engine.num_optimization_profiles, 1))
        )

    def describe_inputs(self) -> list[Input]:
        """Return the inputs of the engine according to its first profile.

        A dynamic axis is named by its bounds, as in 1..8. The example is the opt shape.
        """
        described = []
        for name, shapes in self.profiles[0].items():
            sizes = zip(shapes.min, shapes.max, strict=True)
            dtype = to_numpy(torch.empty(0, dtype=self.inputs[name])).dtype
            shape = tuple(low if low == high else f"{low}..{high}" for low, high in sizes)
            described.append(Input(name, shape, dtype, shapes.opt))
        return described

    def fit(
        self, tensors: Mapping[str, Tensor], device: torch.device
    ) -> tuple[int, dict[str, Tensor]]:
        """Return the profile that allows the tensors, and the tensors in a layout for the engine.

        A tensor that is not contiguous, or lies at an address that is not a multiple of 256 bytes,
        is copied.

        Args:
            tensors: Tensors by name.
            device: The device that they must be on.

        Raises:
            NmnExportError: A tensor is missing, unknown, on another device, of another dtype or of
                a shape that no profile allows.
        """
        if set(tensors) != set(self.inputs):
            raise NmnExportError(
                f"The engine's inputs are {', '.join(self.inputs)}",
                got=", ".join(tensors) or "none",
                fix="Use these names.",
            )
        for name, dtype in self.inputs.items():
            if tensors[name].dtype != dtype:
                raise NmnExportError(
                    f"Input '{name}' of the engine has dtype {_short(dtype)}",
                    got=_short(tensors[name].dtype),
                    fix=f"Convert it to {_short(dtype)}.",
                )
            if tensors[name].device != device:
                raise NmnExportError(
                    f"Input '{name}' of the engine lies on {device}",
                    got=tensors[name].device,
                    fix=f"Move it with .to('{device}').",
                )
        return self._profile_of(tensors), {name: _readable(tensors[name]) for name in self.inputs}

    def _profile_of(self, tensors: Mapping[str, Tensor]) -> int:
        for i, profile in enumerate(self.profiles):
            if all(_allows(shapes, tensors[name].shape) for name, shapes in profile.items()):
                return i
        # With several profiles, each input may fit one although no profile fits all inputs.
        name = next(
            (n for n, shapes in self.profiles[0].items() if not _allows(shapes, tensors[n].shape)),
            next(iter(self.inputs)),
        )
        allowed = " or ".join(dict.fromkeys(str(profile[name]) for profile in self.profiles))
        raise NmnExportError(
            f"Input '{name}' of the engine has shapes {allowed}",
            got=describe(tensors[name].shape),
            fix="Reshape it, or build with other --min-shapes and --max-shapes.",
        )

    def bind(self, context: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Set the input addresses of a context, and allocate its outputs.

        Args:
            context: An `IExecutionContext` of the engine.
            tensors: What `fit` returned; they must live as long as the context may run on them.

        Returns:
            The outputs by name, on the device of the inputs, not yet written.

        Raises:
            NmnExportError: TensorRT rejects a tensor, or cannot infer the shape of an output.
        """
        for name, tensor in tensors.items():
            if not (
                context.set_input_shape(name, tuple(tensor.shape))
                and context.set_tensor_address(name, tensor.data_ptr())
            ):
                raise _rejected(f"input '{name}' of shape {describe(tensor.shape)}")
        if unknown := context.infer_shapes():
            raise _rejected(f"no shape for {', '.join(unknown)}")
        device = next(iter(tensors.values())).device if tensors else None
        outputs = {}
        for name, dtype in self.outputs.items():
            shape = tuple(context.get_tensor_shape(name))
            if min(shape, default=0) < 0:
                raise NmnExportError(
                    "The shape of an output must follow from those of the inputs",
                    got=f"'{name}' of shape {describe(shape)}, which depends on values",
                    fix="Run the ONNX file in ONNX Runtime instead.",
                )
            outputs[name] = torch.empty(shape, dtype=dtype, device=device)
            if not context.set_tensor_address(name, outputs[name].data_ptr()):
                raise _rejected(f"output '{name}' of shape {describe(shape)}")
        return outputs


def describe(shape: Sequence[int]) -> str:
    """Return a shape as text, as in 2x3, with a question mark for an unknown size."""
    return "x".join("?" if size < 0 else str(size) for size in shape) or "scalar"


def _rejected(tensor: str) -> NmnExportError:
    return NmnExportError(
        "TensorRT must accept the tensors of a run",
        got=tensor,
        fix="Use tensors that are not empty.",
    )


def _dtype(engine: Any, name: str) -> torch.dtype:
    kind = engine.get_tensor_dtype(name).name
    place = engine.get_tensor_location(name).name
    if kind not in _DTYPES or place != "DEVICE" or engine.get_tensor_vectorized_dim(name) >= 0:
        raise NmnExportError(
            "The tensors of an engine must be plain arrays on the GPU, of a dtype of PyTorch",
            got=f"'{name}' in {kind} on the {place.lower()}",
            fix="Build the engine with `nmn-export build`.",
        )
    return _DTYPES[kind]


def _shapes(engine: Any, name: str, profile: int) -> ShapeRange:
    shape = tuple(engine.get_tensor_shape(name))
    if min(shape, default=0) >= 0:
        return ShapeRange(shape, shape, shape)
    return ShapeRange(*(tuple(sizes) for sizes in engine.get_tensor_profile_shape(name, profile)))


def _allows(shapes: ShapeRange, shape: Sequence[int]) -> bool:
    return len(shape) == len(shapes.min) and all(
        low <= size <= high for low, size, high in zip(shapes.min, shape, shapes.max, strict=True)
    )


def _readable(tensor: Tensor) -> Tensor:
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % _ALIGNMENT == 0 else tensor.clone()


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
