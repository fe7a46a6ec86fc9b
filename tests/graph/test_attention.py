import pytest
import torch

from tests.attention_enclosure import assert_attention_near_exact
from tests.cases import ATTENTION_CASES, AttentionCase, with_dtypes
from tests.graph.attention_networks import one_attention_node, tensors_of
from tests.graph.networks import assert_valid, output_of, runners


@pytest.mark.parametrize(
    ("case", "dtype"), with_dtypes(ATTENTION_CASES, torch.float16, torch.bfloat16)
)
def test_the_body_is_near_exact_in_every_runtime(case: AttentionCase, dtype: torch.dtype) -> None:
    arguments = case.arguments(dtype)
    for beside in (
        (),
        ATTENTION_CASES,
    ):  # the variant for this node, and the one that supports all cases
        model = one_attention_node(case, dtype, beside=beside)
        assert_valid(model)
        for runner in runners(model):
            y = output_of(runner, **tensors_of(case, dtype))
            assert y.dtype == dtype
            assert_attention_near_exact(y, case, arguments)
