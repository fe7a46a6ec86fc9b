"""The error of each runtime against float64 truth, and the limit that it must keep."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from nmn_export.errors import NmnExportError
from nmn_export.runtime.arrays import Arrays
from nmn_export.runtime.runner import Runner

EAGER_FACTOR = 16.0
"""A runtime may have this many times the error of eager PyTorch. Rounding depends on how many terms
are added in a row, and that differs between two correct programs."""

TOLERANCES = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}
"""Errors that always pass, by dtype of the outputs. They are a few dozen units in the last place of
float32 and two of a half precision, because a network rounds at every layer."""

DISPLACEMENT = 16 * float(np.finfo(np.float32).eps)
"""Rounding that a correct program may have in ‖x − w‖², as a multiple of ‖x‖² + ‖w‖². Every
ⵟ-product accumulates in float32 or wider, whatever the dtype of the model."""


class Truth(Runner, Protocol):
    """The model in float64, as `nmn_export.runtime.pytorch.TruthRunner` is."""

    def run_displaced(self, inputs: Arrays, displacement: float) -> Arrays:
        """Return the outputs if every squared distance is displaced."""
        ...


@dataclass(frozen=True)
class Comparison:
    """One runtime on one set of inputs.

    Attributes:
        subject: `"model"`, or the name of a single layer.
        inputs: Kind of inputs, such as `"random"`.
        backend: The runtime.
        error: Its error, as `error` defines it.
        limit: The largest error that passes. `None` for eager PyTorch, which other runtimes are
            measured by and which only has to be finite.
    """

    subject: str
    inputs: str
    backend: str
    error: float
    limit: float | None

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit. NaN never passes."""
        return math.isfinite(self.error) if self.limit is None else self.error <= self.limit


def error(values: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    """Return the largest |y − t| / (|t| + rms(t)) over the elements.

    The error of a large element is relative to the element, and that of a small one to the typical
    size of the tensor. A truth beyond the range of the dtype counts as the largest value of that
    dtype, because the ops saturate. The error is infinite if the shapes differ, or if NaN or
    infinity is in one tensor only. Elements that are NaN or infinite in both tensors are skipped.
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
    truth: Truth,
    others: list[Runner],
) -> list[Comparison]:
    """Run `inputs` in every runtime and compare each output with the truth.

    An error passes if it is within the tolerance of the dtype, within `EAGER_FACTOR` times that of
    eager PyTorch, or no larger than what `DISPLACEMENT` changes in the truth. The last one matters
    where an input equals a weight: the distance has no correct digits there in float32.

    Args:
        subject: As in `Comparison`.
        description: The kind of inputs.
        inputs: Arrays by name.
        eager: The model in eager PyTorch.
        truth: The model in float64.
        others: The runtimes to judge.

    Returns:
        One comparison per runtime, eager first, with the largest error over all outputs.

    Raises:
        NmnExportError: The outputs of the reference are not those of a runtime, there is nothing to
            compare, or an input is NaN.
    """
    _check_numbers(inputs)
    expected = truth.run(inputs)
    if not any(np.isfinite(values.astype(np.float64)).any() for values in expected.values()):
        shapes = ", ".join(f"{name} {values.shape}" for name, values in expected.items())
        raise NmnExportError(
            "Outputs can be compared where they are finite numbers",
            got=f"none in the reference's {shapes or 'outputs'} for {subject}",
            fix="Give inputs for which the outputs are finite.",
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
    limit = TOLERANCES.get(dtype, TOLERANCES["float32"])
    if math.isfinite(errors[eager.name]):
        limit = max(limit, EAGER_FACTOR * errors[eager.name])
    if any(found > limit for name, found in errors.items() if name != eager.name):
        limit = max(limit, _rounding_error(truth, inputs, expected))
    return [
        Comparison(subject, description, name, found, None if name == eager.name else limit)
        for name, found in errors.items()
    ]


def _rounding_error(truth: Truth, inputs: Arrays, expected: Arrays) -> float:
    """Return the error that rounding in the squared distances may cause."""
    errors = [0.0]
    for displacement in (-DISPLACEMENT, DISPLACEMENT):
        outputs = truth.run_displaced(inputs, displacement)
        errors += [error(outputs[key], expected[key]) for key in expected]
    return max(found for found in errors if math.isfinite(found))


def _check_numbers(inputs: Arrays) -> None:
    for name, array in inputs.items():
        if np.isnan(array.astype(np.float64)).any():
            raise NmnExportError(
                "Inputs to compare on have no NaN, which every runtime makes NaN of",
                got=f"NaN in '{name}'",
                fix="Give numbers.",
            )
