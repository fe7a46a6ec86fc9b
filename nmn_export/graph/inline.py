"""Inlining: the body of each op in place of its nodes, under names that say where it comes from."""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from nmn_export.graph.schema import is_yat
from nmn_export.ops import DOMAIN

_INLINED_FROM = "nmn_export.inlined_from"
"""Metadata key of a node's ⵟ node. It is removed again once the node has its name."""

_CONSTANT_DTYPES = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def inline_functions(model: ir.Model) -> None:
    """Replace every ⵟ node by its body, so that only standard ops are left.

    Nodes and values of a body are named after the ⵟ node, as `layer1.0.yat_conv/Conv`. Names are
    unique in the model.

    Args:
        model: Changed in place. Its ⵟ nodes have unique names.
    """
    for node in filter(is_yat, model.graph.all_nodes()):
        node.metadata_props[_INLINED_FROM] = str(node.name)
    InlinePass()(model)
    model.opset_imports.pop(DOMAIN, None)
    names = {str(node.name) for node in model.graph.all_nodes()}
    values = {str(value.name) for node in model.graph.all_nodes() for value in node.outputs}
    values |= {*map(str, model.graph.initializers), *(str(x.name) for x in model.graph.inputs)}
    for node in model.graph.all_nodes():
        origin = node.metadata_props.pop(_INLINED_FROM, None)
        if origin is None:
            continue
        node.name = unique_name(f"{origin}/{node.op_type}", names)
        for value in node.outputs:
            if not value.is_graph_output():
                value.name = unique_name(f"{origin}/{value.name}", values)
    write_constants_as_tensors(model.graph)


def unique_name(base: str, taken: set[str]) -> str:
    """Return `base`, with a number at its end if it is taken, and add the result to `taken`."""
    name, count = base, 1
    while name in taken:
        count += 1
        name = f"{base}_{count}"
    taken.add(name)
    return name


def write_constants_as_tensors(graph: ir.Graph | ir.Function) -> None:
    """Give constants the attribute `value`, the only form that every reader of ONNX knows.

    A constant that refers to an attribute of its function keeps its form: a tensor cannot refer.
    """
    for node in graph:
        for name in _CONSTANT_DTYPES.keys() & node.attributes.keys():
            attribute = node.attributes[name]
            if node.op_type == "Constant" and not attribute.is_ref():
                array = np.array(attribute.value, dtype=_CONSTANT_DTYPES[name])
                del node.attributes[name]
                node.attributes["value"] = ir.AttrTensor("value", ir.tensor(array))
