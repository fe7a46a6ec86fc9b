"""Scalars that the optimizer of PyTorch's exporter takes for 0 or 1.

It removes x + c where |c| ≤ 1e-8, and x · c where |c − 1| ≤ 1e-5. So it would remove an ε of 1e-12.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir


@contextmanager
def hidden_from_optimizer(model: ir.Model) -> Iterator[None]:
    """Let scalars that are nearly 0 or 1 be inputs of the graph inside a `with` block."""
    graph, hidden = model.graph, []
    for value, tensor in list(_constants(graph)):
        if _is_mistaken(tensor):
            kind = ir.TensorType(tensor.dtype)
            stand_in = ir.Value(name=value.name, type=kind, shape=ir.Shape([]))
            hidden.append((stand_in, tensor))
            value.replace_all_uses_with(stand_in)
            graph.initializers.pop(str(value.name), None)
            graph.inputs.append(stand_in)
    yield
    for stand_in, tensor in hidden:
        graph.inputs.remove(stand_in)
        if stand_in.uses():
            stand_in.const_value = tensor
            graph.register_initializer(stand_in)


def _constants(graph: ir.Graph) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """Yield the constants of a graph: those of nodes and its initializers."""
    for node in graph.all_nodes():
        if node.op_type == "Constant" and "value" in node.attributes:
            yield node.outputs[0], node.attributes["value"].as_tensor()
    for value in graph.initializers.values():
        if value.const_value is not None:
            yield value, value.const_value


def _is_mistaken(tensor: ir.TensorProtocol) -> bool:
    """Return whether the optimizer takes a constant for a number that it does not equal."""
    if tensor.shape.dims or not tensor.dtype.is_floating_point():
        return False
    number = float(tensor.numpy())
    return any(
        number != exact and math.isclose(number, exact, rel_tol=1e-5, abs_tol=1e-8)
        for exact in (0.0, 1.0)
    )
