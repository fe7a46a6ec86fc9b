"""The ⵟ nodes of a graph: find them, check them against the op specs, give them unique names."""

import onnx_ir as ir

from nmn_export.errors import NmnExportError
from nmn_export.graph.schema import is_yat
from nmn_export.ops import OPS, PLUGIN_ATTRIBUTES

_ATTRIBUTE_TYPES = {
    float: ir.AttributeType.FLOAT,
    int: ir.AttributeType.INT,
    tuple: ir.AttributeType.INTS,
    str: ir.AttributeType.STRING,
}


def yat_nodes(model: ir.Model) -> list[ir.Node]:
    """Return the ⵟ nodes of a model, including those in branches and loops."""
    return [node for node in model.graph.all_nodes() if is_yat(node)]


def check_nodes(model: ir.Model) -> None:
    """Check that the ⵟ nodes of a file match the specifications of their ops.

    Raises:
        NmnExportError: An input or a required attribute is missing, or an attribute has the wrong
            type.
    """
    for node in yat_nodes(model):
        spec = OPS[node.op_type]
        if len(node.inputs) != len(spec.inputs) or None in node.inputs:
            given = [name for name, value in zip(spec.inputs, node.inputs, strict=False) if value]
            got = f"{len(node.inputs)} ({', '.join(given)})"
            raise _damaged(node, f"has the inputs {', '.join(spec.inputs)}", got)
        types = spec.attribute_types | dict.fromkeys(PLUGIN_ATTRIBUTES, str)
        for name, kind in types.items():
            wanted, attribute = _ATTRIBUTE_TYPES[kind], node.attributes.get(name)
            if attribute is None and spec.attributes.get(name, "") is None:
                raise _damaged(node, f"has the attribute {name}", "none")
            if attribute is not None and attribute.type != wanted:
                raise _damaged(node, f"has {name} as {wanted.name}", attribute.type.name)


def _damaged(node: ir.Node, rule: str, got: str) -> NmnExportError:
    return NmnExportError(
        f"A node of {node.op_type} {rule}",
        got=f"{got} on '{node.name or node.outputs[0].name}'",
        fix="The file is damaged; export it again.",
    )


def name_nodes(model: ir.Model) -> None:
    """Give every ⵟ node a unique name, which identifies its layer in TensorRT's network.

    TensorRT turns a constant into a layer with the constant's name. If two layers have the same
    name, it renames the second. A node's name must therefore differ from those of constants, too.
    """
    nodes = list(model.graph.all_nodes())
    graphs = {model.graph, *(node.graph for node in nodes if isinstance(node.graph, ir.Graph))}
    values = [v for g in graphs for v in (*g.inputs, *g.outputs, *g.initializers.values())]
    # The output of a ⵟ node becomes a constant only if it is folded, and it is renamed then.
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
