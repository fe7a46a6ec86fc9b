import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nmn_export.kernels.conv.weights import prepare_conv
from nmn_export.kernels.conv_transpose.weights import prepare_conv_transpose
from nmn_export.kernels.dense.weights import prepare_dense
from nmn_export.kernels.weights import DTYPES, Prepared
from tests.kernels import host

BITS = {2: torch.int16, 4: torch.int32}

dtypes = st.sampled_from(DTYPES)
alphas = st.sampled_from((1.0, 0.0, -2.5, 2**0.5))
biases = st.sampled_from((0, 1, 2))
seeds = st.integers(0, 2**32 - 1)


def draw(
    shape: tuple[int, ...], bias_kind: int, dtype: torch.dtype, seed: int
) -> tuple[object, ...]:
    """Draw a weight over many magnitudes, and no bias, one number or one for each row."""
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=random) * torch.randn(shape, generator=random).exp()
    bias_dim = (0, 1, shape[0])[bias_kind]
    bias = torch.randn(bias_dim, generator=random).to(dtype) if bias_dim else None
    return weight.to(dtype), bias


def assert_same(made: host.Weights, prepared: Prepared) -> None:
    planes = prepared.planes.reshape(made.planes.shape).contiguous()
    bits = BITS[planes.element_size()]
    assert torch.equal(made.planes.view(bits), planes.view(bits))
    torch.testing.assert_close(made.column_term, prepared.column_term, rtol=2e-6, atol=0)
    bias = torch.zeros(len(made.bias)) if prepared.bias is None else prepared.bias
    assert torch.equal(made.bias, bias)
    if prepared.column_scale is not None:
        torch.testing.assert_close(made.column_scale, prepared.column_scale, rtol=2e-6, atol=0)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 4),
    features=st.one_of(st.integers(1, 40), st.sampled_from((1023, 1024, 1040, 1041))),
    dtype=dtypes,
    alpha=alphas,
    spherical=st.booleans(),
    bias_kind=biases,
    seed=seeds,
)
def test_matrices(
    rows: int,
    features: int,
    dtype: torch.dtype,
    alpha: float,
    spherical: bool,
    bias_kind: int,
    seed: int,
) -> None:
    weight, bias = draw((rows, features), bias_kind, dtype, seed)
    arguments = (weight, bias, 1e-3, alpha, spherical)
    prepared = prepare_dense(*arguments, dtype=dtype)
    assert_same(host.prepare_weight(*arguments), prepared)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 4),
    features=st.one_of(st.integers(1, 20), st.sampled_from((63, 64, 80, 129))),
    kernel=st.sampled_from(((1,), (3,), (17,), (1, 1), (3, 3), (5, 7), (2, 3, 2))),
    dtype=dtypes,
    alpha=alphas,
    bias_kind=biases,
    seed=seeds,
)
def test_filters(
    rows: int,
    features: int,
    kernel: tuple[int, ...],
    dtype: torch.dtype,
    alpha: float,
    bias_kind: int,
    seed: int,
) -> None:
    weight, bias = draw((rows, features, *kernel), bias_kind, dtype, seed)
    arguments = (weight, bias, 1e-3, alpha)
    prepared = prepare_conv(*arguments, group=1, dtype=dtype).prepared
    assert_same(host.prepare_weight(*arguments), prepared)


@settings(max_examples=30, deadline=None)
@given(
    groups=st.integers(1, 3),
    filters=st.integers(1, 4),
    features=st.one_of(st.integers(1, 20), st.sampled_from((64, 1030))),
    kernel=st.sampled_from(((1,), (3,), (1, 1), (4, 4), (2, 3, 2))),
    dtype=dtypes,
    alpha=alphas,
    bias_kind=biases,
    seed=seeds,
)
def test_transposed_filters(
    groups: int,
    filters: int,
    features: int,
    kernel: tuple[int, ...],
    dtype: torch.dtype,
    alpha: float,
    bias_kind: int,
    seed: int,
) -> None:
    weight, _ = draw((groups * features, filters, *kernel), 0, dtype, seed)
    _, bias = draw((groups * filters, 1), bias_kind, dtype, seed)
    arguments = (weight, bias, 1e-3, alpha)
    prepared = prepare_conv_transpose(*arguments, group=groups, dtype=dtype).prepared
    assert_same(host.prepare_weight(*arguments, transposed_groups=groups), prepared)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 32), (3, 32, 2, 2)])
def test_an_aligned_weight_is_used_without_a_copy(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    weight, bias = draw(shape, 1, dtype, seed=0)
    made = host.prepare_weight(weight, bias, 1e-3, 1.0, store=False)
    stored = host.prepare_weight(weight, bias, 1e-3, 1.0)
    assert torch.equal(made.column_term, stored.column_term)
    assert torch.equal(made.bias, stored.bias)


def test_two_of_three_planes_are_those_of_fewer_products() -> None:
    weight = torch.randn(3, 20)
    made = host.prepare_weight(weight, None, 1e-3, 1.0)
    prepared = prepare_dense(
        weight, None, 1e-3, 1.0, False, dtype=torch.float32, precision="bf16x3"
    )
    assert torch.equal(made.planes[:2].flatten(2), prepared.planes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_and_values_that_are_not_finite(dtype: torch.dtype) -> None:
    weight = torch.zeros(3, 5, dtype=dtype)
    weight[1, 2], weight[2, 3] = float("inf"), float("nan")
    arguments = (weight, None, 1e-3, 1.0, True)
    made, prepared = host.prepare_weight(*arguments), prepare_dense(*arguments, dtype=dtype)
    planes = prepared.planes.reshape(made.planes.shape)
    torch.testing.assert_close(made.planes, planes, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(made.column_scale, prepared.column_scale, equal_nan=True)
    torch.testing.assert_close(made.column_term, prepared.column_term, equal_nan=True)
