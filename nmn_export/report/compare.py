"""How far each runtime is from float64 truth, and whether that is near enough."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nmn_export.errors import NmnExportError
from nmn_export.runtime.arrays import Arrays
from nmn_export.runtime.runner import Runner

EAGER_FACTOR = 16.0
"""A runtime may err so many times as much as eager PyTorch does. Where inputs are close to weights,
the products have one sign and rounding grows with how many terms are added in a row, which differs
between two correct programs.
"""

TOLERANCES = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}
"""Or by so much whatever eager does: a few dozen units in the last place of float32, and two of the
half precisions, for a network rounds at every layer."""


@dataclass(frozen=True)
class Comparison:
    """One runtime on one set of inputs.

    Attributes:
        subject: `"model"`, or the name of a layer that was run by itself.
        inputs: What the inputs were.
        backend: The runtime.
        error: Its error, as `error` defines it.
        limit: The largest error that passes; `None` for eager PyTorch, the yardstick, which only
            has to be finite.
    """

    subject: str
    inputs: str
    backend: str
    error: float
    limit: float | None

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit; NaN is not."""
        return math.isfinite(self.error) if self.limit is None else self.error <= self.limit


def error(values: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    """Return the largest |y − t| / (|t| + rms(t)) over the elements.

    So a large output is held to its own size, and a small one to the typical size of its tensor.
    A truth beyond the range of the dtype counts as that dtype's largest value, to which the ops
    saturate. Another shape is an infinite error, and so is a NaN or infinity on one side only;
    where both have the same, there is nothing to measure.
    """
    if values.shape != truth.shape:
        return float("inf")
    y, t = values.astype(np.float64), truth.astype(np.float64)
    if values.dtype.name in ("float16", "bfloat16"):
        largest = torch.finfo(getattr(torch, values.dtype.name)).max
        t = np.clip(t, -largest, largest)
    finite = np.isfinite(y) & np.isfinite(t)
    if not np.array_equal(y[~finite], t[~finite], equal_nan=True):
        return float("inf")
    y, t = y[finite], t[finite]
    if not t.size:
        return 0.0
    distance, scale = np.abs(y - t), np.abs(t) + np.sqrt(np.mean(np.square(t)))
    if not scale.any():
        return float("inf") if distance.any() else 0.0
    return float(np.max(distance / scale))


def compare(
    subject: str,
    description: str,
    inputs: Arrays,
    eager: Runner,
    truth: Runner,
    others: list[Runner],
) -> list[Comparison]:
    """Run `inputs` through everything and compare each output with the truth.

    Returns:
        One comparison a runtime, eager first: the largest error over the outputs of each.

    Raises:
        NmnExportError: The reference has other outputs than a runtime, or there is nothing to
            compare.
    """
    _check_numbers(inputs)
    expected = truth.run(inputs)
    if not any(np.isfinite(values.astype(np.float64)).any() for values in expected.values()):
        shapes = ", ".join(f"{name} {values.shape}" for name, values in expected.items())
        raise NmnExportError(
            "Outputs can be compared where they are finite numbers",
            got=f"none in the reference's {shapes or 'outputs'} for {subject}",
            fix="Give inputs for which there are some.",
        )
    outputs = {runner.name: runner.run(inputs) for runner in (eager, *others)}
    for name, values in outputs.items():
        if set(values) != set(expected):
            raise NmnExportError(
                "The reference must have the outputs of the file",
                got=f"{len(expected)} of the reference and {len(values)} of {name}",
                fix="Name the model that the file was exported from.",
            )
    errors = {
        name: max(error(values[key], expected[key]) for key in expected)
        for name, values in outputs.items()
    }
    dtype = next(iter(outputs[eager.name].values())).dtype.name
    limit = max(EAGER_FACTOR * errors[eager.name], TOLERANCES.get(dtype, TOLERANCES["float32"]))
    return [
        Comparison(subject, description, name, found, None if name == eager.name else limit)
        for name, found in errors.items()
    ]


def _check_numbers(inputs: Arrays) -> None:
    for name, array in inputs.items():
        if np.isnan(array.astype(np.float64)).any():
            raise NmnExportError(
                "Inputs to compare on have no NaN, which every runtime makes NaN of",
                got=f"NaN in '{name}'",
                fix="Give numbers.",
            )
