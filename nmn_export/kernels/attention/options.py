"""Options of YatAttention in the form that its kernel uses. Does not import Triton."""

import math
from dataclasses import dataclass

from nmn_export.errors import NmnExportError
from nmn_export.kernels.weights import fold

LOG2_E = math.log2(math.e)

LOWEST_EXPONENT = -1e38
"""Exponent of the smallest score that is not hidden. Differences of two exponents are finite."""


@dataclass(frozen=True)
class Options:
    """The numbers that a kernel needs besides sizes and strides; see the table of arguments.

    An exponent is log2 of a weight. Without a power it is the score in units of ln 2; with the
    power p it is p log2 |score|, so that no power overflows.
    """

    norm_scale: float
    floor: float
    mask_scale: float
    spherical: int
    epsilon: float
    sign: float
    power: float
    negative_factor: float
    start_exponent: float
    start_sum: float

    @property
    def are_plain(self) -> bool:
        """Whether the weights are the softmax of scores that are positive and not spherical."""
        return not self.spherical and self.sign > 0 and self.power == 0

    @classmethod
    def of(
        cls, epsilon: float, scale: float, spherical: bool, power: float, guard: float
    ) -> "Options":
        """Return the options for the attributes of the op.

        Raises:
            NmnExportError: ε is not positive, the scale is out of range, or the power or the guard
                is negative.
        """
        for name, value in (("power", power), ("guard", guard)):
            if not (math.isfinite(value) and value >= 0):
                raise NmnExportError(
                    f"The YatAttention kernel takes a finite {name} of at least 0",
                    got=value,
                    fix="Call nmn_export.ops.yat_attention for others.",
                )
        unit = 1.0 if power else LOG2_E
        folded = fold(epsilon, scale * unit)
        has_guard = bool(power and guard)
        return cls(
            norm_scale=folded.norm_scale,
            floor=folded.floor,
            mask_scale=unit,
            spherical=int(spherical),
            epsilon=epsilon,
            sign=-1.0 if folded.negative else 1.0,
            power=power,
            negative_factor=_negative_factor(power),
            start_exponent=math.log2(guard) if has_guard else LOWEST_EXPONENT,
            start_sum=1.0 if has_guard else 0.0,
        )


def _negative_factor(power: float) -> float:
    """Return (−x)^power / x^power; 1 if there is no power."""
    if not power.is_integer():
        return math.nan
    return -1.0 if power % 2 else 1.0
