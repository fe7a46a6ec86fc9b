"""Weight preparation: constant W and B are replaced by the tensors that the kernels read."""

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.optimizer import fold_constants
from torch import Tensor

from nmn_export.engine.graph.decomposition import NO_LIMIT
from nmn_export.engine.graph.nodes import yat_nodes
from nmn_export.errors import NmnExportError
from nmn_export.kernels.attention.options import Options
from nmn_export.kernels.conv.weights import prepare_conv
from nmn_export.kernels.conv_transpose.weights import prepare_conv_transpose
from nmn_export.kernels.dense.weights import prepare_dense
from nmn_export.kernels.weights import Float32Precision, Prepared, fold
from nmn_export.ops import OPS, PLUGIN_ATTRIBUTES


def _prepare_dense(
    node: ir.Node, weight: Tensor, bias: Tensor, precision: Float32Precision
) -> Prepared:
    epsilon, alpha, spherical = (_attribute(node, n) for n in ("epsilon", "alpha", "spherical"))
    options: dict[str, Any] = {"dtype": weight.dtype, "precision": precision}
    return prepare_dense(weight, bias, epsilon, alpha, bool(spherical), **options)


def _prepare_conv(
    node: ir.Node, weight: Tensor, bias: Tensor, precision: Float32Precision
) -> Prepared:
    epsilon, alpha, group = (_attribute(node, n) for n in ("epsilon", "alpha", "group"))
    options: dict[str, Any] = {"dtype": weight.dtype, "precision": precision}
    prepare = prepare_conv if node.op_type == "YatConv" else prepare_conv_transpose
    return prepare(weight, bias, epsilon, alpha, group, **options).prepared


PREPARE: dict[str, Callable[[ir.Node, Tensor, Tensor, Float32Precision], Prepared]] = {
    "YatDense": _prepare_dense,
    "YatConv": _prepare_conv,
    "YatConvTranspose": _prepare_conv,
}
"""Weight preparation by op, for ops that have a weight."""


def _check_attention(node: ir.Node) -> None:
    names = ("epsilon", "scale", "spherical", "power", "guard")
    Options.of(*(_attribute(node, name) for name in names))


CHECK: dict[str, Callable[[ir.Node], None]] = {"YatAttention": _check_attention}
"""For the other ops, a function that raises `NmnExportError` if the plugin does not take a node."""


def prepare_for_plugin(model: ir.Model, precision: Float32Precision) -> dict[str, str]:
    """Replace W and B by prepared weights on every ⵟ node that has them and the plugin supports.

    Inputs (X, W, B) become (X, planes [P, N, K'], column_term [N], bias [N]). A spherical op has
    column_scale [N] as its last input. Weights that are not constant stay unchanged; the plugin
    prepares them at every inference.

    Args:
        model: Changed in place. Every ⵟ node has a unique name.
        precision: How float32 products are computed.

    Returns:
        The reason for each node that the plugin does not support, by node name.
    """
    unsupported: dict[str, str] = {}
    _fold_slices(model)
    for node in yat_nodes(model):
        requested = {name: node.attributes.get_string(name) for name in PLUGIN_ATTRIBUTES}
        if requested != PLUGIN_ATTRIBUTES:
            unsupported[str(node.name)] = (
                f"it asks for version {requested['plugin_version']} of a plugin of "
                f"'{requested['plugin_namespace']}'"
            )
            continue
        try:
            if node.op_type in PREPARE:
                _prepare(node, precision)
            else:
                CHECK[node.op_type](node)
        except NmnExportError as error:
            unsupported[str(node.name)] = str(error)
    RemoveUnusedNodesPass()(model)
    return unsupported


def _prepare(node: ir.Node, precision: Float32Precision) -> None:
    weight, bias = (_constant(node.inputs[i]) for i in (1, 2))
    if weight is None or bias is None:
        _check_scalars(node)
    else:
        _replace_weights(node, PREPARE[node.op_type](node, weight, bias, precision))


def _fold_slices(model: ir.Model) -> None:
    """Compute the weights that are slices of initializers, as those of kernel banks are."""
    nodes = [node for node in yat_nodes(model) if node.op_type in PREPARE]
    weights = [value for node in nodes for value in node.inputs[1:] if value]
    slices = {value.producer() for value in weights}
    fold_constants(
        model,
        input_size_limit=NO_LIMIT,
        output_size_limit=NO_LIMIT,
        should_fold=lambda node: node in slices and node.op_type == "Slice",
    )


def _constant(value: ir.Value | None) -> Tensor | None:
    """Return the value of an initializer, or `None` if it is computed or given at run time."""
    if value is None or not value.is_initializer() or value.is_graph_input():
        return None
    tensor = value.const_value
    if tensor is None:
        return None
    dtype = ir.tensor_adapters.to_torch_dtype(tensor.dtype)
    flat = torch.frombuffer(bytearray(tensor.tobytes()), dtype=dtype)
    return flat.reshape(tensor.shape.numpy())


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


def _check_scalars(node: ir.Node) -> None:
    """Raise the errors of weight preparation that do not depend on the weights."""
    fold(_attribute(node, "epsilon"), _attribute(node, "alpha"))


def _attribute(node: ir.Node, name: str) -> Any:
    """Return an attribute of a node, or the default of its op."""
    attribute = node.attributes.get(name)
    return OPS[node.op_type].attributes[name] if attribute is None else attribute.value
