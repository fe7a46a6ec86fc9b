import inspect
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import nmn_export.layers
from nmn_export.errors import NmnExportError, OptionError
from nmn_export.layers import soft_tanh, softer_sigmoid, softermax
from tests.squasher_cases import DTYPES, ELEMENTWISE, POWERS, edge_rows, edge_values

upstream = pytest.importorskip("nmn.torch")

FUNCTIONS = ELEMENTWISE | {"softermax": softermax}

every_function = pytest.mark.parametrize("name", FUNCTIONS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def assert_same_bits(y: Tensor, expected: Tensor) -> None:
    """Fail unless the numbers are equal, with the signs of zeros; NaN is equal to NaN."""
    assert (y.dtype, y.shape) == (expected.dtype, expected.shape)
    assert torch.equal(y.isnan(), expected.isnan())
    a, b = (torch.where(t.isnan(), 0, t) for t in (y, expected))
    assert torch.equal(a, b)
    assert torch.equal(torch.signbit(a), torch.signbit(b))


@every_function
def test_the_arguments_are_those_of_upstream(name: str) -> None:
    def arguments(function: Callable[..., Tensor]) -> list[tuple[str, object]]:
        found = inspect.signature(function).parameters.values()
        return [(p.name, p.default) for p in found]

    assert arguments(FUNCTIONS[name]) == arguments(getattr(upstream, name))
    assert name in nmn_export.layers.__all__


@pytest.mark.parametrize("n", POWERS)
@every_dtype
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_edge_values_give_the_bits_of_upstream(name: str, dtype: torch.dtype, n: float) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.cat([edge_values(dtype), (3 * torch.randn(500, generator=random)).to(dtype)])
    assert_same_bits(FUNCTIONS[name](x, n), getattr(upstream, name)(x, n))


@pytest.mark.parametrize("n", POWERS)
@every_dtype
def test_edge_rows_of_softermax_give_the_bits_of_upstream(dtype: torch.dtype, n: float) -> None:
    x = edge_rows(dtype)
    for dim in (-1, 1, 0, None):
        for epsilon in (1e-12, 0.5):
            y, expected = softermax(x, n, epsilon, dim), upstream.softermax(x, n, epsilon, dim)
            assert_same_bits(y, expected)
        assert_same_bits(softermax(x[:4], n, dim=dim), upstream.softermax(x[:4], n, dim=dim))


@every_function
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (0, 3), (2, 3, 4)], ids=str)
def test_shapes_are_those_of_upstream(name: str, shape: tuple[int, ...]) -> None:
    x = torch.rand(shape)
    assert_same_bits(FUNCTIONS[name](x), getattr(upstream, name)(x))


def test_a_row_of_zeros_gives_zeros_except_in_float16() -> None:
    for dtype in DTYPES:
        y = softermax(torch.zeros(3, dtype=dtype))
        assert y.isnan().all() if dtype == torch.float16 else not y.any()


def test_negative_numbers_are_not_clamped() -> None:
    assert softer_sigmoid(torch.tensor(-1.0)).item() == -math.inf
    assert soft_tanh(torch.tensor(-1.0)).item() == -math.inf
    assert softer_sigmoid(torch.tensor(-2.0), 1.5).isnan()


@every_function
@pytest.mark.parametrize("n", [0, -1, -0.5, math.nan, math.inf])
def test_a_power_that_is_not_positive_is_refused(name: str, n: float) -> None:
    with pytest.raises(OptionError, match=f"Power 'n' must be positive and finite; got {n}. Use"):
        FUNCTIONS[name](torch.ones(3), n)


@every_function
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool], ids=str)
def test_integers_are_refused(name: str, dtype: torch.dtype) -> None:
    with pytest.raises(NmnExportError, match=f"take floating-point input; got {dtype}. Call"):
        FUNCTIONS[name](torch.ones(3, dtype=dtype))


@every_function
@pytest.mark.parametrize("n", [1.0, 2.0, 3.0, 0.5, 1.5])
def test_gradients_are_those_of_upstream(name: str, n: float) -> None:
    x = torch.tensor([0.3, 1.0, 2.5], requires_grad=True)
    gradients = []
    for function in (FUNCTIONS[name], getattr(upstream, name)):
        (gradient,) = torch.autograd.grad(function(x, n).square().sum(), x)
        gradients.append(gradient)
    torch.testing.assert_close(*gradients)
