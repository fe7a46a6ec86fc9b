"""Decomposition: ⵟ nodes are replaced by the standard ops of their function bodies.

TensorRT's parser can inline functions itself. It does not resolve the attributes `strides`,
`dilations` and `kernel_shape` that a body takes from its node (TensorRT-RTX 1.7.1).
"""

from collections.abc import Collection

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, RemoveUnusedNodesPass
from onnxscript.optimizer import fold_constants

from nmn_export.engine.graph.nodes import yat_nodes
from nmn_export.errors import NmnExportError
from nmn_export.ops import DOMAIN

_BODIES = "ai.nmn.bodies"
"""Temporary domain of the nodes and functions that are being inlined."""

_DECOMPOSED_FROM = "nmn_export.decomposed_from"
"""Metadata key under which an inlined node keeps the name of its ⵟ node."""

NO_LIMIT = 2**62


def decompose(model: ir.Model, names: Collection[str]) -> None:
    """Replace ⵟ nodes by their function bodies, fold constants, and remove all ⵟ functions.

    The functions are removed so that TensorRT cannot silently inline a node that must become a
    plugin layer.

    Args:
        model: Changed in place.
        names: Names of the nodes to decompose.

    Raises:
        NmnExportError: The file has no function for one of these nodes.
    """
    for node in yat_nodes(model):
        if node.name in names:
            if node.op_identifier() not in model.functions:
                raise NmnExportError(
                    "A file must define a function for every ⵟ op that the plugin does not compute",
                    got=f"no function {node.domain}::{node.op_type} for '{node.name}'",
                    fix="Export it again, and do not use tools that remove functions.",
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
    with np.errstate(all="ignore"):  # overflow is as silent as at run time
        fold_constants(
            model,
            input_size_limit=NO_LIMIT,
            output_size_limit=NO_LIMIT,
            should_fold=lambda node: _DECOMPOSED_FROM in node.metadata_props,
        )
    _remove_expands(model)
    RemoveUnusedNodesPass()(model)
    for node in model.graph.all_nodes():
        origin = node.metadata_props.get(_DECOMPOSED_FROM)
        if origin and not str(node.name).startswith(f"{origin}/"):
            node.name = f"{origin}/{node.name}"


def _remove_expands(model: ir.Model) -> None:
    """Remove the Expand before a MatMul of a decomposed node, because TensorRT broadcasts.

    ONNX Runtime needs it for an empty batch.
    """
    for node in model.graph.all_nodes():
        if node.op_type != "MatMul" or _DECOMPOSED_FROM not in node.metadata_props:
            continue
        left = node.inputs[0]
        expand = left.producer() if left else None
        if expand is not None and expand.op_type == "Expand":
            node.replace_input_with(0, expand.inputs[0])


def _prefix_values(model: ir.Model) -> None:
    """Prefix the values of a decomposed node with the node's name.

    Folding turns them into constants, whose names must not collide with those of plugin layers.
    """
    for node in model.graph.all_nodes():
        origin = node.metadata_props.get(_DECOMPOSED_FROM)
        for value in node.outputs if origin else ():
            if value.name and not value.is_graph_output():
                value.name = f"{origin}/{value.name}"
