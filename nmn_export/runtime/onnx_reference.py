"""The reference evaluator of the onnx package: NumPy, slow, and the definition of the standard."""

import math
from typing import Any

import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

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


class _Evaluator(ReferenceEvaluator):
    """Uses `Flatten` in functions, too: the evaluator of a function is made by the same class."""

    def __init__(self, model: Any, **options: Any) -> None:
        super().__init__(model, new_ops=[Flatten], **options)
