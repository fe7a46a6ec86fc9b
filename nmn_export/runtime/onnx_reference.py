"""The reference evaluator of the onnx package: NumPy, slow, and the definition of the standard."""

import math
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops import op_conv_transpose

from nmn_export.runtime.arrays import Arrays


class OnnxReferenceRunner:
    """An ONNX model in the evaluator that comes with the standard.

    Args:
        model: The model, weights included.
    """

    name = "onnx reference"

    def __init__(self, model: onnx.ModelProto) -> None:
        self._evaluator = _Evaluator(model)

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs by name."""
        values = self._evaluator.run(None, inputs)
        return dict(zip(self._evaluator.output_names, values, strict=True))


class Flatten(OpRun):
    """The standard op. The evaluator's own one fails if the input is empty."""

    def _run(self, x, axis):  # type: ignore[no-untyped-def]
        sizes = (math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
        return (x.reshape(sizes),)


class ConvTranspose(op_conv_transpose.ConvTranspose):
    """The standard op, group by group.

    The evaluator's own one takes the filters of a group from the axis of outputs, and fails if the
    batch is empty.
    """

    def _run(self, X, W, B=None, group=1, **attributes):  # type: ignore[no-untyped-def, override]
        images = X if len(X) else np.zeros((1, *X.shape[1:]), X.dtype)
        biases = [None] * group if B is None else np.split(B, group)
        outputs = []
        for x, w, b in zip(np.split(images, group, 1), np.split(W, group), biases, strict=True):
            (y,) = super()._run(x, w, b, group=1, **attributes)  # type: ignore[no-untyped-call]
            outputs.append(y)
        return (np.concatenate(outputs, 1)[: len(X)],)


class _Evaluator(ReferenceEvaluator):
    """Uses the ops above in functions, too: the evaluator of one is made by the same class."""

    def __init__(self, model: Any, **options: Any) -> None:
        super().__init__(model, new_ops=[Flatten, ConvTranspose], **options)
