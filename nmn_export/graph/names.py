"""Names in a model: the outputs' fixed ones, the modules' paths for nodes, and no name twice."""

import ast
import re
from collections import Counter
from collections.abc import Collection, Sequence

import onnx_ir as ir

from nmn_export.errors import NmnExportError
from nmn_export.graph.schema import input_index, is_yat

LAYER_KEY = "nmn_export.layer"
"""Metadata key of a ⵟ node: the path of its layer. A layer that is called twice has two nodes."""


_NO_MODULE = "_empty_nn_module_stack_from_metadata_hook"
"""What PyTorch calls the module of a node that computes a dynamic size."""


def unique(wanted: Sequence[str], reserved: Collection[str] = ()) -> list[str]:
    """Return the wanted names. The second one of its kind gets the suffix `_2`, and so on."""
    taken, suffix = set(reserved), Counter[str]()
    avoided = taken.union(wanted)
    names = []
    for base in wanted:
        name = base
        while name in taken or (name != base and name in avoided):
            suffix[base] += 1
            name = f"{base}_{suffix[base] + 1}"
        taken.add(name)
        names.append(name)
    return names


def output_names(count: int) -> list[str]:
    """Return the names of a graph's outputs."""
    return ["output"] if count == 1 else [f"output_{i}" for i in range(count)]


def name_nodes(model: ir.Model) -> None:
    """Name every node after the module it comes from: its path, and its op if it is not a ⵟ op."""
    nodes = list(model.graph.all_nodes())
    bases = []
    for node in nodes:
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
        path = scopes[-2] if len(scopes) > 1 and scopes[-2] != _NO_MODULE else ""
        bases.append(
            path if is_yat(node) and path else "/".join(filter(None, (path, node.op_type)))
        )
        # PyTorch's properties hold stack traces, with paths of the machine that exported.
        node.metadata_props.clear()
        if is_yat(node) and path:
            node.metadata_props[LAYER_KEY] = path
    for node, name in zip(nodes, unique(bases), strict=True):
        node.name = name


def name_biases(model: ir.Model) -> None:
    """Give every bias a name of its own: PyTorch merges equal ones, and zeros are equal."""
    for node in filter(is_yat, model.graph.all_nodes()):
        index, wanted = input_index(node, "B"), f"{node.name}.bias"
        if index is None:
            continue
        bias = node.inputs[index]
        if bias is None or bias.const_value is None or bias.name == wanted:
            continue
        (name,) = unique([wanted], model.graph.initializers)
        own = ir.Value(name=name, type=bias.type, shape=bias.shape, const_value=bias.const_value)
        model.graph.register_initializer(own)
        node.replace_input_with(index, own)
        if bias.name and bias.is_initializer() and not bias.uses():
            del model.graph.initializers[bias.name]


def name_masks(model: ir.Model) -> None:
    """Name the zero that attention without a mask adds to its scores."""
    masks = []
    for node in filter(is_yat, model.graph.all_nodes()):
        index = input_index(node, "M")
        mask = None if index is None else node.inputs[index]
        if mask is not None and mask.const_value is not None and mask.const_value.size == 1:
            masks.append(mask)
    masks = list(dict.fromkeys(masks))
    _rename(masks, unique(["no_mask"] * len(masks), model.graph.initializers))


def name_values(model: ir.Model) -> None:
    """Name the outputs, and rename every weight or intermediate value whose name is taken.

    The names of inputs and outputs are the model's interface. They are not changed.

    Raises:
        NmnExportError: An input has the name of an output.
    """
    inputs, outputs = model.graph.inputs, model.graph.outputs
    fixed = output_names(len(outputs))
    clash = sorted({value.name or "" for value in inputs} & set(fixed))
    if clash:
        raise NmnExportError(
            "Inputs and outputs have different names",
            got=f"an input '{clash[0]}', which is the name of an output",
            fix="Rename that argument of the model's forward.",
        )
    interface = {*inputs, *outputs}
    others = [value for value in values_of(model.graph) if value not in interface]
    names = unique([value.name or "value" for value in others], {*map(_name, inputs), *fixed})
    _rename(others, names)
    # An output may be a weight, and onnx_ir refuses a name that another weight still has.
    _rename(outputs, unique(fixed, {*fixed, *names}))
    _rename(outputs, fixed)


def name_body(body: ir.Function) -> None:
    """Name the values of a function, and its nodes after what they compute: `conv/quarter`.

    TensorRT puts the name of the ⵟ node before that of a node in its body.
    """
    nodes = list(body)
    interface = {*body.inputs, *body.outputs}
    values = [v for node in nodes for v in node.outputs if v not in interface]
    _rename(values, unique([_body_name(value) for value in values], {*map(_name, interface)}))
    for node in nodes:
        node.name = f"{body.name.removeprefix('Yat').lower()}/{node.outputs[0].name}"


def values_of(graph: ir.Graph) -> list[ir.Value]:
    """Return the values of a graph and of its subgraphs, each once, initializers first."""
    graphs = (graph, *graph.subgraphs())
    values = [v for g in graphs for v in (*g.inputs, *g.initializers.values())]
    return list(dict.fromkeys(values + [v for node in graph.all_nodes() for v in node.outputs]))


def stem(name: str) -> str:
    """Return a name without the function before it and the numbers that made it unique."""
    return re.sub(r"(_\d+)+$", "", name.rpartition("/")[2])


def _body_name(value: ir.Value) -> str:
    """Return the name of a value in its piece, or its op type if onnxscript generated the name."""
    name, producer = stem(_name(value)), value.producer()
    return producer.op_type if producer and name in {"tmp", "return_val"} else name


def _name(value: ir.Value) -> str:
    return value.name or ""


def _rename(values: Sequence[ir.Value], names: Sequence[str]) -> None:
    for value, name in zip(values, names, strict=True):
        value.name = name
