"""The model as TensorRT's parser gets it: weights prepared for the plugin, or ops decomposed.

What the plugin computes keeps its node, with the weights in the form that its kernels read. What it
does not compute is replaced by the body of its op: TensorRT's parser can do that itself, but does
not look up `strides`, `dilations` and `kernel_shape` that a body takes from its node (TensorRT-RTX
1.7.1).
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import InlinePass, RemoveUnusedNodesPass
from onnxscript.optimizer import fold_constants
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.graph.schema import is_yat
from nmn_export.kernels.conv.weights import prepare_conv
from nmn_export.kernels.dense.weights import prepare_dense
from nmn_export.kernels.weights import Float32Precision, Prepared, fold
from nmn_export.ops import DOMAIN, OPS, PLUGIN_ATTRIBUTES

_BODIES = "ai.nmn.bodies"
"""Domain of nodes that are to be decomposed, until they are."""

_DECOMPOSED_FROM = "nmn_export.decomposed_from"
"""Under which a node of a body keeps the name of the ⵟ node it stands for."""

_ATTRIBUTE_TYPES = {
    float: ir.AttributeType.FLOAT,
    int: ir.AttributeType.INT,
    tuple: ir.AttributeType.INTS,
    str: ir.AttributeType.STRING,
}

_NO_LIMIT = 2**62


def yat_nodes(model: ir.Model) -> list[ir.Node]:
    """Return the ⵟ nodes of a model, those in branches and loops included."""
    return [node for node in model.graph.all_nodes() if is_yat(node)]


def check_nodes(model: ir.Model) -> None:
    """Look whether the ⵟ nodes of a file are such as their ops are declared.

    Raises:
        NmnExportError: An input is missing, or an attribute that must be there, or of its type.
    """
    for node in yat_nodes(model):
        spec = OPS[node.op_type]
        if len(node.inputs) != len(spec.inputs) or None in node.inputs:
            given = [name for name, value in zip(spec.inputs, node.inputs, strict=False) if value]
            got = f"{len(node.inputs)} ({', '.join(given)})"
            raise _damaged(node, f"has the inputs {', '.join(spec.inputs)}", got)
        types = spec.attribute_types | dict.fromkeys(PLUGIN_ATTRIBUTES, str)
        for name, kind in types.items():
            wanted, found = _ATTRIBUTE_TYPES[kind], node.attributes.get(name)
            if found is None and spec.attributes.get(name, "") is None:
                raise _damaged(node, f"has the attribute {name}", "none")
            if found is not None and found.type != wanted:
                raise _damaged(node, f"has {name} as {wanted.name}", found.type.name)


def _damaged(node: ir.Node, rule: str, got: str) -> NmnExportError:
    return NmnExportError(
        f"A node of {node.op_type} {rule}",
        got=f"{got} on '{node.name or node.outputs[0].name}'",
        fix="The file is damaged; export it again.",
    )


def name_nodes(model: ir.Model) -> None:
    """Give every ⵟ node a name of its own, by which it is found again among TensorRT's layers.

    A constant becomes a layer of its own name, and of two layers of one name TensorRT renames the
    second.
    """
    nodes = list(model.graph.all_nodes())
    graphs = {model.graph, *(node.graph for node in nodes if isinstance(node.graph, ir.Graph))}
    values = [v for g in graphs for v in (*g.inputs, *g.outputs, *g.initializers.values())]
    # What a ⵟ node computes becomes a constant only if it is folded, and is renamed then.
    values += [value for node in nodes if not is_yat(node) for value in node.outputs]
    taken = {value.name for value in values} | {n.name for n in nodes if not is_yat(n)}
    given: set[str | None] = set()
    for node in yat_nodes(model):
        base = name = node.name or node.outputs[0].name or node.op_type
        own = {value.name for value in node.outputs if value.is_graph_output()}
        count = 1
        while name in given or name in taken - own:
            count += 1
            name = f"{base}_{count}"
        given.add(name)
        node.name = name


def prepare_for_plugin(model: ir.Model, precision: Float32Precision) -> dict[str, str]:
    """Put prepared weights in the place of W and B on every ⵟ node that the plugin can compute.

    Inputs (X, W, B) become (X, planes [P, N, K'], column_term [N], bias [N]), with column_scale [N]
    at the end on the sphere. Weights that other nodes compute stay as they are, and the plugin
    prepares them at every inference.

    Args:
        model: Changed in place; every ⵟ node has a name of its own.
        precision: How products of float32 are made.

    Returns:
        Why, for each node that the plugin cannot compute, by its name.
    """
    refused: dict[str, str] = {}
    _fold_weights(model)
    for node in yat_nodes(model):
        found = {name: node.attributes.get_string(name) for name in PLUGIN_ATTRIBUTES}
        if found != PLUGIN_ATTRIBUTES:
            refused[str(node.name)] = (
                f"it asks for version {found['plugin_version']} of a plugin of "
                f"'{found['plugin_namespace']}'"
            )
            continue
        weight, bias = (_constant(node.inputs[i]) for i in (1, 2))
        try:
            if weight is None or bias is None:
                _check_raw(node)
            else:
                _replace_weights(node, _prepare(node, weight, bias, precision))
        except NmnExportError as error:
            refused[str(node.name)] = str(error)
    RemoveUnusedNodesPass()(model)
    return refused


def _fold_weights(model: ir.Model) -> None:
    """Compute weights that are slices of initializers, as those of kernel banks are."""
    slices = {
        value.producer()
        for node in yat_nodes(model)
        for value in node.inputs[1:3]
        if value is not None and value.producer() is not None
    }
    fold_constants(
        model,
        input_size_limit=_NO_LIMIT,
        output_size_limit=_NO_LIMIT,
        should_fold=lambda node: node in slices and node.op_type == "Slice",
    )


def decompose(model: ir.Model, names: Collection[str]) -> None:
    """Put the bodies of ⵟ nodes in their place, constants folded, and drop the functions.

    Without a function a node that should become a plugin layer cannot become anything else.

    Args:
        model: Changed in place.
        names: Of the nodes.

    Raises:
        NmnExportError: The file has no function for one of them.
    """
    for node in yat_nodes(model):
        if node.name in names:
            if node.op_identifier() not in model.functions:
                raise NmnExportError(
                    "A file carries the definition of every ⵟ op that the plugin does not compute",
                    got=f"no function {node.domain}::{node.op_type} for '{node.name}'",
                    fix="Export it again, and keep tools away that strip functions.",
                )
            node.domain = _BODIES
            node.metadata_props[_DECOMPOSED_FROM] = str(node.name)
    bodies = [function for function in model.functions.values() if function.domain == DOMAIN]
    for function in bodies:
        del model.functions[function.identifier()]
        function.domain = _BODIES
        model.functions[function.identifier()] = function
    model.opset_imports[_BODIES] = 1
    InlinePass(criteria=lambda function: function.domain == _BODIES)(model)
    for function in bodies:
        model.functions.pop(function.identifier(), None)
    del model.opset_imports[_BODIES]
    if not names:
        return
    _prefix_values(model)
    with np.errstate(all="ignore"):  # as silent as if it were computed at run time
        fold_constants(
            model,
            input_size_limit=_NO_LIMIT,
            output_size_limit=_NO_LIMIT,
            should_fold=lambda node: _DECOMPOSED_FROM in node.metadata_props,
        )
    RemoveUnusedNodesPass()(model)
    for node in model.graph.all_nodes():
        origin = node.metadata_props.get(_DECOMPOSED_FROM)
        if origin and not str(node.name).startswith(f"{origin}/"):
            node.name = f"{origin}/{node.name}"


def _prefix_values(model: ir.Model) -> None:
    """Name what bodies compute after their nodes.

    Folded to constants, they would take the names of layers from nodes that the plugin computes.
    """
    for node in model.graph.all_nodes():
        origin = node.metadata_props.get(_DECOMPOSED_FROM)
        for value in node.outputs if origin else ():
            if value.name and not value.is_graph_output():
                value.name = f"{origin}/{value.name}"


def _constant(value: ir.Value | None) -> Tensor | None:
    """Return what a file says of a tensor, or `None` if it is computed or given at run time."""
    if value is None or not value.is_initializer() or value.is_graph_input():
        return None
    tensor = value.const_value
    if tensor is None:
        return None
    dtype = ir.tensor_adapters.to_torch_dtype(tensor.dtype)
    flat = torch.frombuffer(bytearray(tensor.tobytes()), dtype=dtype)
    return flat.reshape(tensor.shape.numpy())


def _prepare(node: ir.Node, weight: Tensor, bias: Tensor, precision: Float32Precision) -> Prepared:
    epsilon, alpha = _float(node, "epsilon"), _float(node, "alpha")
    common: dict[str, Any] = {"dtype": weight.dtype, "precision": precision}
    if node.op_type == "YatDense":
        spherical = bool(node.attributes.get_int("spherical", 0))
        return prepare_dense(weight, bias, epsilon, alpha, spherical, **common)
    group = node.attributes.get_int("group", 1)
    return prepare_conv(weight, bias, epsilon, alpha, group, **common).prepared


def _replace_weights(node: ir.Node, prepared: Prepared) -> None:
    parts = {
        "planes": prepared.planes,
        "column_term": prepared.column_term,
        "bias": prepared.bias,
        "column_scale": prepared.column_scale,
    }
    node.resize_inputs(1)
    for part, tensor in parts.items():
        if tensor is None:
            continue
        value = ir.Value(name=f"{node.name}/{part}")
        value.const_value = ir.tensor_adapters.TorchTensor(tensor.contiguous(), name=value.name)
        value.shape, value.dtype = value.const_value.shape, value.const_value.dtype
        assert node.graph is not None
        node.graph.register_initializer(value)
        node.resize_inputs(len(node.inputs) + 1)
        node.replace_input_with(len(node.inputs) - 1, value)


def _check_raw(node: ir.Node) -> None:
    """Raise what preparing constant weights would have raised, as far as it can be known."""
    fold(_float(node, "epsilon"), _float(node, "alpha"))


def _float(node: ir.Node, name: str) -> float:
    default = OPS[node.op_type].attributes[name]
    assert isinstance(default, float)
    return node.attributes.get_float(name, default)
