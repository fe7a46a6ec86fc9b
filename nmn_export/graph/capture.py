"""Convert a PyTorch module to an ONNX model of `ai.nmn` ops and standard ops."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import is_concrete_int

from nmn_export.errors import NmnExportError
from nmn_export.graph import linear_attention
from nmn_export.graph.arguments import bind
from nmn_export.graph.functions import DEFINITIONS, function
from nmn_export.graph.inline import inline as inline_functions
from nmn_export.graph.kernel_bank import share_banks
from nmn_export.graph.names import name_biases, name_masks, name_nodes, name_values
from nmn_export.graph.schema import is_yat
from nmn_export.layers.attention_functions import attention_as_op
from nmn_export.ops import DOMAIN, OPS, VERSION

OPSETS = range(18, 24)
"""Versions of the standard ops that PyTorch exports and ONNX Runtime supports."""

DynamicAxes = Mapping[str, Mapping[int, str]]
"""The dynamic axes of each input, and the names of their sizes."""

_DTYPES = {"float", "float16", "bfloat16"}

_TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    OPS[name].torch_op: definition.translate for name, definition in DEFINITIONS.items()
} | {torch.ops.nmn.causal_linear_attention.default: linear_attention.translate}


def capture(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    dynamic_axes: DynamicAxes,
    opset: int,
    inline: bool,
) -> ir.Model:
    """Trace a folded module and return its ONNX model with functions.

    Args:
        model: Module in eval mode whose ⵟ layers are folded.
        inputs: Example inputs by the names of the module's arguments. The graph takes them in the
            order of the arguments.
        dynamic_axes: The axes of `inputs` that vary.
        opset: Version of the standard ops.
        inline: Replace the ops by their bodies, so that the model has standard ops only.

    Raises:
        NmnExportError: The opset is not supported, the module has no such argument, an axis cannot
            vary, or PyTorch cannot trace or translate the module.
    """
    if opset not in OPSETS:
        raise NmnExportError(
            f"opset must be in {OPSETS.start} to {OPSETS.stop - 1}", got=opset, fix="Use 18."
        )
    _check_dynamic_axes(inputs, dynamic_axes)
    program = _trace(model, inputs, dynamic_axes)
    onnx_model = _translate(program, bind(model, inputs).names, dynamic_axes, opset)
    name_nodes(onnx_model)
    name_biases(onnx_model)
    name_masks(onnx_model)
    share_banks(onnx_model)
    name_values(onnx_model)
    _attach_functions(onnx_model, opset)
    if inline:
        inline_functions(onnx_model)
    return onnx_model


def _trace(
    model: nn.Module, inputs: Mapping[str, Tensor], dynamic_axes: DynamicAxes
) -> torch.export.ExportedProgram:
    try:
        return _torch_export(model, inputs, dynamic_axes, torch.export.Dim.DYNAMIC)
    except NmnExportError:
        raise
    except Exception as error:  # the errors of tracing have no common base
        fixed = _fixed_axes(model, inputs, dynamic_axes)
        if fixed:
            raise NmnExportError(
                "A model must work for all sizes of a dynamic axis",
                got=f"a model that fixes the size of {', '.join(fixed)}",
                fix="Do not make that axis dynamic. If a feature map of the example has size 1 "
                "there, give a larger example.",
            ) from error
        raise NmnExportError(
            "torch.export must be able to trace the model",
            got=_first_line(error),
            fix="Run torch.export.export on the model for the complete report.",
        ) from error


def _torch_export(
    model: nn.Module, inputs: Mapping[str, Tensor], dynamic_axes: DynamicAxes, kind: Any
) -> torch.export.ExportedProgram:
    # Axes are not named here. PyTorch requires that a named axis can have every size from 0 up,
    # which even a convolution without padding does not allow.
    kinds = {name: dict.fromkeys(dynamic_axes.get(name, ()), kind) for name in inputs}
    # PyTorch marks the tensors it gets as dynamic, so it gets views of the user's.
    views = bind(model, {name: tensor.detach() for name, tensor in inputs.items()})
    with torch.no_grad(), attention_as_op():
        return torch.export.export(
            model,
            views.positional,
            views.keyword,
            dynamic_shapes=bind(model, kinds).by_parameter(model),
        )


def _fixed_axes(
    model: nn.Module, inputs: Mapping[str, Tensor], dynamic_axes: DynamicAxes
) -> list[str]:
    """Return the dynamic axes that the model fixes to one size; none if tracing fails otherwise."""
    try:
        program = _torch_export(model, inputs, dynamic_axes, torch.export.Dim.AUTO)
    except Exception:
        return []
    traced = {
        node.name: node.meta["val"].shape for node in program.graph.find_nodes(op="placeholder")
    }
    shapes = [traced[str(name)] for name in program.graph_signature.user_inputs]
    return [
        f"{name}:{axis}"
        for name, shape in zip(bind(model, inputs).names, shapes, strict=True)
        for axis in dynamic_axes.get(name, ())
        if is_concrete_int(shape[axis])
    ]


def _translate(
    program: torch.export.ExportedProgram,
    names: Sequence[str],
    dynamic_axes: DynamicAxes,
    opset: int,
) -> ir.Model:
    with quiet():
        try:
            onnx_program = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                input_names=list(names),
                dynamic_shapes=tuple(dict(dynamic_axes.get(name, {})) for name in names),
                custom_translation_table=_TRANSLATIONS,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise NmnExportError(
                "Every op of the model must have an ONNX translation",
                got=_first_line(error.__cause__ or error),
                fix="Write that part of the model with ops that torch.onnx.export knows.",
            ) from error
    assert onnx_program is not None
    return onnx_program.model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress PyTorch's log messages and warnings, which are for its own developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _check_dynamic_axes(inputs: Mapping[str, Tensor], dynamic_axes: DynamicAxes) -> None:
    sizes: dict[str, int] = {}
    for name, axes in dynamic_axes.items():
        if name not in inputs:
            raise NmnExportError(
                "A dynamic axis must belong to an input",
                got=f"'{name}'; the inputs are {', '.join(inputs)}",
                fix="Use one of these names.",
            )
        shape = tuple(inputs[name].shape)
        for axis, size in axes.items():
            if not 0 <= axis < len(shape):
                raise NmnExportError(
                    f"Input '{name}' has axes 0 to {len(shape) - 1}",
                    got=f"dynamic axis {axis}",
                    fix="Choose one of them.",
                )
            if shape[axis] < 2:
                raise NmnExportError(
                    "The example needs a size of at least 2 on a dynamic axis, because PyTorch "
                    "treats sizes 0 and 1 as constants",
                    got=f"shape {shape} of '{name}', whose axis {axis} is dynamic",
                    fix=f"Give '{name}' a size of 2 there.",
                )
            if sizes.setdefault(size, shape[axis]) != shape[axis]:
                raise NmnExportError(
                    "Dynamic axes with the same name must have the same size",
                    got=f"{sizes[size]} and {shape[axis]} for '{size}'",
                    fix="Use different names, or an example with equal sizes.",
                )


def _attach_functions(model: ir.Model, opset: int) -> None:
    """Add a function for each op that the model uses."""
    used: dict[str, list[ir.Node]] = {}
    for node in filter(is_yat, model.graph.all_nodes()):
        used.setdefault(node.op_type, []).append(node)
    for name, nodes in used.items():
        dtypes = {x.dtype.name.lower() for n in nodes if (x := n.inputs[0]) and x.dtype}
        if len(dtypes) > 1:
            raise NmnExportError(
                f"All {name} ops of a model must have the same dtype: they share one function",
                got=" and ".join(sorted(dtypes)),
                fix="Export with dtype=, which converts the whole model.",
            )
        if not dtypes <= _DTYPES:
            raise NmnExportError(
                f"{name} takes float32, float16 or bfloat16",
                got=dtypes.pop(),
                fix="Export with dtype=, which converts the whole model.",
            )
        body = function(name, nodes, opset)
        model.functions[body.identifier()] = body
    model.opset_imports.update({DOMAIN: VERSION} if used else {})


def _first_line(error: BaseException) -> str:
    lines: Sequence[str] = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip() if lines else 'no message'}"
