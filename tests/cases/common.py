"""What the cases of all ops have in common."""

import zlib
from typing import Literal

import torch
from torch import Tensor

Bias = Literal["none", "vector", "scalar"]

Values = Literal["normal", "near", "equal", "zeros"]
"""Inputs: random, within 1 % of the weights, equal to them, or partly zero."""

NOISE = 0.01
"""Relative distance of weights from inputs for the values "near"."""


def generator(case_id: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(case_id.encode()))


def make_bias(
    kind: Bias, count: int, scale: float, random: torch.Generator, dtype: torch.dtype
) -> Tensor | None:
    if kind == "none":
        return None
    size = 1 if kind == "scalar" else count
    return (scale * torch.randn(size, generator=random)).to(dtype)
