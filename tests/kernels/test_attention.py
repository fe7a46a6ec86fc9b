"""YatAttention's kernel in Triton's interpreter."""

import dataclasses
import itertools

import pytest
import torch
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.kernels.attention.launch import forward, yat_attention
from nmn_export.kernels.attention.options import Options
from nmn_export.kernels.attention.plan import AttentionPlan
from nmn_export.kernels.tile_size import Tile
from nmn_export.kernels.weights import Float32Precision
from nmn_export.ops import exact_yat_attention
from tests import enclosure
from tests.attention_enclosure import assert_attention_near_exact
from tests.cases import ATTENTION_CASES, AttentionCase, attention_case, with_dtypes

SMALL = Tile(m=16, n=16, k=256, warps=4, stages=2)
PLANS = (
    AttentionPlan(SMALL),
    AttentionPlan(dataclasses.replace(SMALL, m=32, n=32, k=16)),
    AttentionPlan(SMALL, parts=3, split=True),
    AttentionPlan(dataclasses.replace(SMALL, n=32, k=16), parts=1, split=True),
)


def plan_id(plan: AttentionPlan) -> str:
    tile = plan.tile
    return f"{tile.m}x{tile.n}x{tile.k}" + f"-{plan.parts}-parts" * plan.split


def compute(
    arguments: tuple[object, ...],
    plan: AttentionPlan,
    precision: Float32Precision | None = None,
    key_lengths: Tensor | None = None,
) -> Tensor:
    q, k, v, mask, epsilon, scale, is_causal, spherical, power, guard = arguments
    return yat_attention(
        q,
        k,
        v,
        mask,
        Options.of(epsilon, scale, spherical, power, guard),
        is_causal=is_causal,
        precision=precision,
        key_lengths=key_lengths,
        plan=plan,
    )


CASES = [
    pytest.param(*case.values, plan, id=f"{case.id}-{plan_id(plan)}")
    for case, plan in zip(
        with_dtypes(ATTENTION_CASES, torch.float16, torch.bfloat16),
        itertools.cycle((*PLANS, *PLANS[:1])),
    )
]
"""Four dtypes and plans in turn."""


@pytest.mark.parametrize(("case", "dtype", "plan"), CASES)
def test_near_exact(case: AttentionCase, dtype: torch.dtype, plan: AttentionPlan) -> None:
    arguments = case.arguments(dtype)
    y = compute(arguments, plan)
    assert y.is_contiguous()
    assert_attention_near_exact(y, case, arguments, rounds_weights=True)
