"""What one ⵟ op of a graph costs. A dynamic axis counts as size 1."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from nmn_export.errors import NmnExportError
from nmn_export.ops import OPS
from nmn_export.report.single_attention import is_attention

EPILOGUE_FLOPS = 6
"""FLOPs per output element: add norms, subtract, clamp, divide, multiply, add the bias."""

SCORE_FLOPS = 10
"""FLOPs per score of an attention: add norms, subtract, clamp, divide, multiply, add the mask,
subtract the largest score, exponentiate, add up, divide."""

Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class OpCost:
    """What a node costs.

    Attributes:
        parameters: Elements of W and B.
        flops: FLOPs of one run.
        elements: Elements of all inputs and the output.
    """

    parameters: int
    flops: int
    elements: int


def op_cost(node: onnx.NodeProto, shapes: Mapping[str, Shape], y: Shape) -> OpCost:
    """Return the cost of a node.

    A weight costs two FLOPs per tap of each output element, or of each input element in a
    transposed convolution, and two per input element for its square. An attention costs two per
    feature of each score and of each value, and two per element of Q and K; its causal form counts
    hidden scores, too.

    Args:
        node: The node.
        shapes: Of its inputs by declared name; empty if it is not known.
        y: Shape of its output.

    Raises:
        NmnExportError: An input is missing, or a shape that must be known is not.
    """
    return _attention(node, shapes, y) if is_attention(node) else _weighted(node, shapes, y)


def _weighted(node: onnx.NodeProto, shapes: Mapping[str, Shape], y: Shape) -> OpCost:
    weight, bias = (_fixed(shapes.get(name, ())) for name in ("W", "B"))
    if len(node.input) != 3 or not weight or not bias:
        raise NmnExportError(
            f"A ⵟ op is {' or '.join(OPS)} of an input, weights and a bias, both of known shape",
            got=f"{node.op_type} '{node.name}' of {', '.join(node.input) or 'nothing'}",
            fix="Export the file again.",
        )
    inputs, outputs = _elements(shapes["X"]), _elements(y)
    taps, parameters = math.prod(weight[1:]), math.prod(weight) + math.prod(bias)
    multiplied = inputs if node.op_type == "YatConvTranspose" else outputs
    flops = 2 * multiplied * taps + EPILOGUE_FLOPS * outputs + 2 * inputs
    return OpCost(parameters, flops, inputs + parameters + outputs)


def _attention(node: onnx.NodeProto, shapes: Mapping[str, Shape], y: Shape) -> OpCost:
    names = list(OPS[node.op_type].inputs)
    if list(shapes) != names or {len(shape) for shape in shapes.values()} != {4}:
        raise NmnExportError(
            f"{node.op_type} has the inputs {', '.join(names)}, of four axes each",
            got=f"'{node.name}' of {', '.join(node.input) or 'nothing'}",
            fix="Export the file again.",
        )
    elements = {name: _elements(shape) for name, shape in shapes.items()}
    scores = _elements((*shapes["Q"][:3], shapes["K"][2]))
    features = _elements((shapes["Q"][3],)) + _elements((shapes["V"][3],))
    flops = scores * (2 * features + SCORE_FLOPS) + 2 * (elements["Q"] + elements["K"])
    return OpCost(0, flops, sum(elements.values()) + _elements(y))


def _fixed(shape: Shape) -> tuple[int, ...]:
    """Return a shape without dynamic axes, or nothing."""
    fixed = tuple(d for d in shape if isinstance(d, int))
    return fixed if len(fixed) == len(shape) else ()


def _elements(shape: Shape) -> int:
    return math.prod(d for d in shape if isinstance(d, int))
