"""Cases of YatDense."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tests.cases.common import NOISE, Bias, Values, generator, make_bias


@dataclass(frozen=True)
class DenseCase:
    """One call of YatDense.

    Attributes:
        id: What is special about it.
        batch: Leading axes of x.
        in_features: K.
        out_features: N.
        bias: None, [N] or [1].
        bias_scale: Typical size of the bias.
        scale: Typical size of x and w.
    """

    id: str
    batch: tuple[int, ...] = (4,)
    in_features: int = 8
    out_features: int = 5
    bias: Bias = "vector"
    bias_scale: float = 1.0
    epsilon: float = 1e-5
    alpha: float = 1.0
    spherical: bool = False
    values: Values = "normal"
    scale: float = 1.0

    def tensors(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor | None]:
        """Draw x, weight and bias with a fixed seed."""
        random = generator(self.id)
        x = self.scale * torch.randn(*self.batch, self.in_features, generator=random)
        weight = self.scale * torch.randn(self.out_features, self.in_features, generator=random)
        if self.values == "zeros":
            x[0] = 0
            weight[-1] = 0
        elif self.values != "normal":
            rows = x.to(dtype).float().reshape(-1, self.in_features)
            noise = NOISE * weight if self.values == "near" else 0
            weight = rows[torch.arange(self.out_features) % len(rows)] + noise
        bias = make_bias(self.bias, self.out_features, self.bias_scale, random, dtype)
        return x.to(dtype), weight.to(dtype), bias

    def arguments(self, dtype: torch.dtype = torch.float32) -> tuple[object, ...]:
        """Return the arguments of `nmn::yat_dense`."""
        return (*self.tensors(dtype), self.epsilon, self.alpha, self.spherical)


DENSE_CASES = (
    DenseCase("plain"),
    DenseCase("all-sizes-one", batch=(1,), in_features=1, out_features=1),
    DenseCase("odd-sizes", batch=(7,), in_features=13, out_features=11, bias="scalar"),
    DenseCase("one-past-a-power-of-two", batch=(33,), in_features=65, out_features=17),
    DenseCase("long-rows", batch=(2,), in_features=1031, out_features=3, bias="none"),
    DenseCase("many-outputs", batch=(3,), in_features=4, out_features=129, epsilon=0.007),
    DenseCase("three-leading-axes", batch=(2, 3, 4), in_features=6, alpha=2**0.5),
    DenseCase("no-leading-axis", batch=(), in_features=6),
    DenseCase("no-bias", bias="none"),
    DenseCase("large-bias", bias_scale=1000.0),
    DenseCase("alpha-zero", alpha=0.0),
    DenseCase("alpha-negative", alpha=-1.5, bias="scalar"),
    DenseCase("epsilon-two", epsilon=2.0, alpha=0.3),
    DenseCase("near", batch=(6,), in_features=64, bias="none", values="near"),
    DenseCase("near-alpha-negative", in_features=64, alpha=-2.0, values="near"),
    DenseCase("equal", in_features=16, values="equal"),
    DenseCase("equal-no-bias", in_features=16, bias="none", values="equal", alpha=2**0.5),
    DenseCase("zeros", values="zeros"),
    DenseCase("large", in_features=32, bias="none", scale=3000.0),
    DenseCase("tiny", in_features=9, bias="none", scale=1e-3),
    DenseCase("vanishing", bias="none", scale=1e-15),
    DenseCase("spherical", spherical=True, in_features=9),
    DenseCase("spherical-no-bias", spherical=True, bias="none", alpha=-0.5, batch=(2, 3)),
    DenseCase("spherical-near", spherical=True, in_features=32, values="near", bias="scalar"),
    DenseCase("spherical-equal", spherical=True, in_features=16, values="equal"),
    DenseCase("spherical-zeros", spherical=True, values="zeros"),
)


def dense_case(case_id: str) -> DenseCase:
    """Return one case of the table."""
    return next(case for case in DENSE_CASES if case.id == case_id)
