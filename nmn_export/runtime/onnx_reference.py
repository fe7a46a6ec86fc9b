"""The reference evaluator of the onnx package: NumPy, slow, and the definition of the standard."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops.op_conv_transpose import ConvTranspose as _ConvTranspose

from nmn_export.runtime.arrays import Arrays


class ConvTranspose(_ConvTranspose):
    """The evaluator's transposed convolution, group by group.

    Its own code for groups takes the filters of a group from the axis of outputs, and keeps one
    output per group (onnx 1.23.2).
    """

    def _run(  # type: ignore[override]
        self,
        X: NDArray[Any],
        W: NDArray[Any],
        B: NDArray[Any] | None = None,
        group: int = 1,
        **attributes: Any,
    ) -> tuple[NDArray[Any]]:
        biases = [None] * group if B is None else np.split(B, group)
        outputs = []
        for x, w, b in zip(np.split(X, group, axis=1), np.split(W, group), biases, strict=True):
            (y,) = super()._run(x, w, b, group=1, **attributes)  # type: ignore[no-untyped-call]
            outputs.append(y)
        return (np.concatenate(outputs, axis=1),)


class _Evaluator(ReferenceEvaluator):
    """The evaluator with the op above, also in functions, which it evaluates by its own class."""

    def __init__(self, proto: Any, **options: Any) -> None:
        super().__init__(proto, new_ops=[ConvTranspose], **options)


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
