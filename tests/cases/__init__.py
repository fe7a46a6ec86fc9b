"""The table of cases that all backends run: shapes, options and values of every op."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from tests.cases.attention import ATTENTION_CASES, AttentionCase, attention_case
from tests.cases.common import NOISE, Bias, Values
from tests.cases.conv import CONV_CASES, ConvCase, conv_case
from tests.cases.conv_transpose import (
    CONV_TRANSPOSE_CASES,
    ConvTransposeCase,
    conv_transpose_case,
)
from tests.cases.dense import DENSE_CASES, DenseCase, dense_case
from tests.cases.linear_attention import (
    LINEAR_ATTENTION_CASES,
    LinearAttentionCase,
    linear_attention_case,
)

if TYPE_CHECKING:
    import pytest

Case = DenseCase | ConvCase | ConvTransposeCase | AttentionCase | LinearAttentionCase

__all__ = [
    "ATTENTION_CASES",
    "CONV_CASES",
    "CONV_TRANSPOSE_CASES",
    "DENSE_CASES",
    "LINEAR_ATTENTION_CASES",
    "NOISE",
    "AttentionCase",
    "Bias",
    "Case",
    "ConvCase",
    "ConvTransposeCase",
    "DenseCase",
    "LinearAttentionCase",
    "Values",
    "attention_case",
    "conv_case",
    "conv_transpose_case",
    "dense_case",
    "linear_attention_case",
    "with_dtypes",
]


def with_dtypes(cases: Sequence[Case], *dtypes: torch.dtype) -> "list[pytest.ParameterSet]":
    """Return every case in float32 and in one of `dtypes` in turn, for `parametrize`."""
    import pytest  # noqa: PLC0415 - the table is also read on machines that have none

    return [
        pytest.param(case, dtype, id=f"{case.id}-{str(dtype).removeprefix('torch.')}")
        for case, turn in zip(cases, itertools.cycle(dtypes), strict=False)
        for dtype in (torch.float32, turn)
    ]
