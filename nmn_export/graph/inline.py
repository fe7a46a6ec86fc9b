"""Standard ops only: the body of an op's function in the place of every node of the op."""

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from nmn_export.graph.functions import constants_as_tensors
from nmn_export.graph.names import stem, unique, values_of
from nmn_export.graph.schema import is_yat
from nmn_export.ops import DOMAIN

_CALL_KEY = "nmn_export.call"
"""Metadata key by which a node of a body is known after inlining: the name of its ⵟ node."""


def inline(model: ir.Model) -> None:
    """Replace every ⵟ node by its body, whose node and value names are `name of the node/…`."""
    for node in filter(is_yat, model.graph.all_nodes()):
        node.metadata_props[_CALL_KEY] = node.name or ""
    kept = {value.name or "" for value in values_of(model.graph)}
    InlinePass()(model)
    model.opset_imports.pop(DOMAIN, None)
    _name_inlined(model.graph, kept)
    # The attributes of the ops, such as epsilon, are constants now.
    constants_as_tensors(model.graph.all_nodes())


def _name_inlined(graph: ir.Graph, kept: set[str]) -> None:
    inlined, others, bases = [], set(), []
    for node in graph.all_nodes():
        call, name = node.metadata_props.pop(_CALL_KEY, None), node.name or ""
        if call is None:
            others.add(name)
        else:
            inlined.append(node)
            bases.append(f"{call}/{stem(name)}")
    for node, name in zip(inlined, unique(bases, others), strict=True):
        node.name = name
    values = [(v, node.name or "") for node in inlined for v in node.outputs if v.name not in kept]
    for (value, _), name in zip(values, unique([n for _, n in values], kept), strict=True):
        value.name = name
