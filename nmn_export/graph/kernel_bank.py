"""Kernel banks in a file: weights that are the first rows of others, or equal, are stored once."""

import numpy as np
import onnx_ir as ir

from nmn_export.graph.schema import input_index, is_yat


def share_banks(model: ir.Model) -> None:
    """Let ⵟ ops share weights that are equal, or that are the first rows of larger ones.

    Layers of one kernel bank have such weights.

    Args:
        model: Changed in place. Its ⵟ nodes have names.
    """
    weights: dict[str, ir.Value] = {}
    for node in filter(is_yat, model.graph.all_nodes()):
        index = input_index(node, "W")
        weight = None if index is None else node.inputs[index]
        if weight is not None and weight.is_initializer() and weight.const_value is not None:
            weights[str(weight.name)] = weight
    # The largest first, so that each weight is compared with those that are kept.
    kept: list[ir.Value] = []
    for weight in sorted(weights.values(), key=_rows, reverse=True):
        whole = next((w for w in kept if _begins_with(w, weight)), None)
        if whole is None:
            kept.append(weight)
            continue
        same = _rows(whole) == _rows(weight)
        weight.replace_all_uses_with(whole if same else _slice(model, whole, weight))
        del model.graph.initializers[str(weight.name)]


def _rows(weight: ir.Value) -> int:
    assert weight.const_value is not None
    return int(weight.const_value.shape.numpy()[0])


def _begins_with(whole: ir.Value, part: ir.Value) -> bool:
    """Return whether the first rows of a weight, or all, are those of another weight."""
    assert whole.const_value is not None
    assert part.const_value is not None
    large, small = whole.const_value.numpy(), part.const_value.numpy()
    if large.shape[1:] != small.shape[1:] or whole.dtype != part.dtype or not small.size:
        return False
    # Weights that are not of one bank differ in their first rows already.
    return (
        large[0].tobytes() == small[0].tobytes()
        and large[: len(small)].tobytes() == small.tobytes()
    )


def _slice(model: ir.Model, whole: ir.Value, part: ir.Value) -> ir.Value:
    """Return the first rows of a weight, as many as another weight has."""
    bounds = []
    for name, bound in (("begin", 0), ("end", _rows(part))):
        tensor = ir.tensor(np.array([bound], np.int64), name=f"{part.name}/{name}")
        bounds.append(ir.Value(name=tensor.name, const_value=tensor))
        bounds[-1].shape, bounds[-1].dtype = ir.Shape([1]), tensor.dtype
        model.graph.register_initializer(bounds[-1])
    node = ir.node("Slice", [whole, *bounds], name=f"{part.name}/Slice")
    rows = node.outputs[0]
    rows.name, rows.type, rows.shape = f"{part.name}/rows", part.type, part.shape
    model.graph.insert_before(model.graph[0], node)
    return rows
