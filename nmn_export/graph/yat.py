"""The ⵟ-product in onnxscript, with as few passes over the output as its formula allows.

The bodies multiply the weights and the bias by κ = α/2. Then the dense or convolution op computes
g = κ (⟨x, w⟩ + b) directly, and neither α nor the factor 2 costs a pass:

    y = g² / m,    m = α/4 (‖x‖² + ‖w‖² + 2b + ε) − g,    clamped so that the distance is ≥ 0.

Everything but ‖x‖² and g depends on parameters only. A runtime folds it to constants when it loads
the file. ‖w‖² is computed from the scaled weights, which are the ones that the product uses. The
functions here are pieces: they are inlined into the bodies of the ops.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnxscript import FLOAT, script
from onnxscript import opset18 as op
from onnxscript.values import OnnxFunction, Opset

OPSET = op.version
"""Version of the standard ops that the bodies are written in."""

PIECES = Opset("ai.nmn.pieces", 1)
"""Domain of the pieces. A finished function has no node of it."""


@dataclass(frozen=True)
class OpDefinition:
    """What one op is in a graph.

    Attributes:
        body: The function of the op; it calls pieces.
        pieces: Takes the nodes of a model and returns, by the name that the body calls, the piece
            that is fastest for all of them.
        translate: Makes a node from the arguments of the torch op. PyTorch's exporter calls it.
    """

    body: OnnxFunction
    pieces: Callable[[Sequence[ir.Node]], dict[str, OnnxFunction]]
    translate: Callable[..., FLOAT]


@script(PIECES, default_opset=op)
def Scales(epsilon: float, alpha: float) -> tuple[FLOAT, FLOAT, FLOAT]:
    """Return κ = α/2, α/4 and ε α/4.

    If α is zero, 1/4 stands for α/4: g is zero then, and 0²/m is the right result.
    """
    half = op.Constant(value_float=0.5)
    one = op.Constant(value_float=1.0)
    a = op.Constant(value_float=alpha)
    quarter = op.Where(a == op.Constant(value_float=0.0), one, a) * half * half
    return a * half, quarter, quarter * op.Constant(value_float=epsilon)


@script(PIECES, default_opset=op)
def ColumnTerm(W_scaled_sq: FLOAT, B_scaled: FLOAT, quarter: FLOAT, bound: FLOAT) -> FLOAT:
    """Return α/4 (‖w‖² + 2b + ε), the part of m that each output column has, from ‖κw‖² and κb."""
    return W_scaled_sq / (quarter * op.Constant(value_float=4.0)) + B_scaled + bound


@script(PIECES, default_opset=op)
def Clamp(m: FLOAT, quarter: FLOAT, bound: FLOAT) -> FLOAT:
    """Return m for a distance of zero or more.

    m has the sign of α, so ε α/4 bounds it from below or from above.
    """
    positive = quarter > op.Constant(value_float=0.0)
    low = op.Where(positive, bound, op.Constant(value_float=float("-inf")))
    high = op.Where(positive, op.Constant(value_float=float("inf")), bound)
    return op.Clip(m, low, high)


@script(PIECES, default_opset=op)
def Quotient(g: FLOAT, row: FLOAT, column: FLOAT, quarter: FLOAT, bound: FLOAT) -> FLOAT:
    """Return g / clamp(row + column − g), which the op multiplies by g: five passes in all.

    The division comes first because g² could overflow, and because ONNX Runtime would reorder both
    g and g². The op multiplies in the shape of its output: a Reshape at the end of a graph is one
    more pass.
    """
    return g / Clamp(row + column - g, quarter, bound)
