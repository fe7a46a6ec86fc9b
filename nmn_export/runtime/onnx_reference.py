"""The reference evaluator of the onnx package: NumPy, slow, and the definition of the standard."""

import onnx
from onnx.reference import ReferenceEvaluator

from nmn_export.runtime.arrays import Arrays


class OnnxReferenceRunner:
    """An ONNX model in the evaluator that comes with the standard.

    Args:
        model: The model, weights included.
    """

    name = "onnx reference"

    def __init__(self, model: onnx.ModelProto) -> None:
        self._evaluator = ReferenceEvaluator(model)

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs by name."""
        values = self._evaluator.run(None, inputs)
        return dict(zip(self._evaluator.output_names, values, strict=True))
