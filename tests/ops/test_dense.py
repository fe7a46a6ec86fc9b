import math
from operator import attrgetter

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from nmn_export.ops import exact_yat_dense, yat_dense
from tests.cases import DENSE_CASES, DenseCase, dense_case, with_dtypes
from tests.enclosure import assert_near_exact

TORCH_OP = torch.ops.nmn.yat_dense

DIFFERENTIABLE = ("plain", "odd-sizes", "no-bias", "alpha-negative", "epsilon-two", "spherical")


def literal_yat_dense(
    x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float, alpha: float, spherical: bool
) -> Tensor:
    """The definition in plain loops."""

    def unit(row: list[float]) -> list[float]:
        norm = math.sqrt(math.fsum(v * v for v in row)) + 1e-8
        return [v / norm for v in row]

    rows, prototypes = x.double().reshape(-1, x.shape[-1]).tolist(), weight.double().tolist()
    biases = [0.0] * len(prototypes) if bias is None else bias.expand(len(prototypes)).tolist()
    if spherical:
        rows, prototypes = [unit(r) for r in rows], [unit(w) for w in prototypes]
    values = []
    for row in rows:
        for prototype, b in zip(prototypes, biases, strict=True):
            dot = math.fsum(p * q for p, q in zip(row, prototype, strict=True))
            if spherical:
                distance = max(2 - 2 * dot, 0.0)
            else:
                distance = math.fsum((p - q) ** 2 for p, q in zip(row, prototype, strict=True))
            values.append(alpha * (dot + b) ** 2 / (distance + epsilon))
    return torch.tensor(values, dtype=torch.float64).reshape(*x.shape[:-1], len(prototypes))


@pytest.mark.parametrize("case", DENSE_CASES, ids=attrgetter("id"))
def test_exact_is_the_definition(case: DenseCase) -> None:
    arguments = case.arguments()
    # Sums that cancel lose some digits in float64.
    torch.testing.assert_close(
        exact_yat_dense(*arguments), literal_yat_dense(*arguments), rtol=1e-9, atol=0
    )


def test_exact_sums_differences_where_norms_would_cancel() -> None:
    weight = torch.randn(40, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    arguments = (weight + 1e-7, weight, None, 1e-20, 1.0, False)
    torch.testing.assert_close(
        exact_yat_dense(*arguments), literal_yat_dense(*arguments), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(
    ("case", "dtype"), with_dtypes(DENSE_CASES, torch.float16, torch.bfloat16, torch.float64)
)
def test_eager_is_near_exact(case: DenseCase, dtype: torch.dtype) -> None:
    arguments = case.arguments(dtype)
    y = yat_dense(*arguments)
    assert y.dtype == dtype
    # The bias is added and subtracted again, as in the nmn package.
    assert_near_exact(y, case, arguments, bias_in_distance=True)


def test_the_measure_rejects_a_distance_taken_in_half_precision() -> None:
    case = dense_case("near")
    arguments = case.arguments()
    x, weight, *rest = arguments
    with pytest.raises(AssertionError, match="elements are too far from exact"):
        assert_near_exact(yat_dense(x.half().float(), weight, *rest), case, arguments)


def test_an_input_on_a_prototype_gives_the_square_over_epsilon_at_most() -> None:
    x, weight, bias, epsilon, alpha, _ = dense_case("equal").arguments()
    y = yat_dense(x, weight, bias, epsilon, alpha)
    dot = x.double() @ weight.double().T
    assert y.isfinite().all()
    assert (y <= (dot + bias).square() / epsilon * (1 + 1e-5)).all()


def test_the_distance_is_clamped_where_rounding_makes_it_negative() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 33)
    negative = (2 * x.square().sum(-1) - 2 * (x @ x.T).diagonal()) < -1e-6
    assert negative.any(), "no distance rounds below zero; draw other numbers"
    assert (yat_dense(x, x, None, 1e-6, 1.0).diagonal() > 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("alpha", [1e36, -1e36])
def test_half_precisions_saturate(dtype: torch.dtype, alpha: float) -> None:
    x = torch.full((1, 8), 100.0, dtype=dtype)
    y = yat_dense(x, x, alpha=alpha)
    assert y.item() == math.copysign(torch.finfo(dtype).max, alpha)


def test_gradients_of_float16_saturate() -> None:
    x, weight = (torch.full((1, 1), 0.05, dtype=torch.float16).requires_grad_() for _ in range(2))
    y = yat_dense(x, weight, alpha=1e5)  # about 62500, with a slope of 2.5 million
    y.sum().backward()
    assert y < 65504
    assert x.grad == weight.grad == 65504


def test_float16_saturates_at_65504_where_the_sum_alone_would_overflow_it() -> None:
    x = torch.full((1, 64), 300.0, dtype=torch.float16)
    assert yat_dense(x, -x).item() == 65504.0
    assert yat_dense(x, -x, alpha=-1.0).item() == -65504.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_nan_stays_nan(dtype: torch.dtype) -> None:
    x, weight, bias = dense_case("plain").tensors(dtype)
    x[1, 2] = float("nan")
    y = yat_dense(x, weight, bias)
    assert y[1].isnan().all()
    assert y[[0, 2, 3]].isfinite().all()


def test_half_precisions_accumulate_in_float32() -> None:
    x, weight, bias = dense_case("long-rows").tensors(torch.float16)
    wide = yat_dense(x.float(), weight.float(), bias)
    assert torch.equal(yat_dense(x, weight, bias), wide.half())


def test_weight_and_bias_are_rounded_to_the_dtype_of_the_input() -> None:
    x, weight, bias = dense_case("plain").tensors(torch.float32)
    y = yat_dense(x.half(), weight, bias)
    assert torch.equal(y, yat_dense(x.half(), weight.half(), bias.half()))


def test_zero_vectors_on_the_sphere_are_at_distance_two() -> None:
    zero, bias = torch.zeros(1, 4), torch.tensor([3.0])
    y = yat_dense(zero, torch.ones(1, 4), bias, epsilon=0.5, spherical=True)
    assert y.item() == pytest.approx(9 / 2.5)


def test_an_empty_batch_gives_an_empty_result() -> None:
    _, weight, bias, *rest = dense_case("plain").arguments()
    x = torch.empty(0, 8)
    for op in (yat_dense, exact_yat_dense, TORCH_OP):
        assert op(x, weight, bias, *rest).shape == (0, 5)


@pytest.mark.parametrize("case_id", DIFFERENTIABLE)
@pytest.mark.parametrize("op", [yat_dense, TORCH_OP], ids=["eager", "torch-op"])
def test_gradients_match_finite_differences(case_id: str, op: object) -> None:
    x, weight, bias, epsilon, alpha, spherical = dense_case(case_id).arguments(torch.float64)
    tensors = [t[:3] for t in (x, weight)] + ([] if bias is None else [bias[:3]])
    for tensor in tensors:
        tensor.requires_grad_()

    def function(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return op(x, weight, bias, max(epsilon, 0.1), alpha, spherical)

    assert torch.autograd.gradcheck(function, tensors)


def test_epsilon_and_alpha_receive_gradients() -> None:
    x, weight, bias = dense_case("plain").tensors(torch.float64)
    scalars = [torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (0.3, -0.8)]
    assert torch.autograd.gradcheck(lambda e, a: yat_dense(x, weight, bias, e, a), scalars)


def test_the_torch_op_gives_gradients_only_where_they_are_asked_for() -> None:
    x, weight, bias, *rest = dense_case("plain").arguments()
    weight.requires_grad_()
    TORCH_OP(x, weight, bias, *rest).sum().backward()
    assert x.grad is None
    assert bias.grad is None
    expected = weight.grad.clone()
    weight.grad = None
    yat_dense(x, weight, bias, *rest).sum().backward()
    assert torch.equal(weight.grad, expected)


@pytest.mark.parametrize("case_id", ["odd-sizes", "no-bias", "three-leading-axes", "spherical"])
def test_the_torch_op_keeps_the_rules_of_custom_ops(case_id: str) -> None:
    x, weight, bias, *rest = dense_case(case_id).arguments()
    torch.library.opcheck(TORCH_OP.default, (x.requires_grad_(), weight, bias, *rest))


def test_the_torch_op_computes_the_eager_formula() -> None:
    for case in DENSE_CASES:
        arguments = case.arguments(torch.bfloat16)
        assert torch.equal(TORCH_OP(*arguments), yat_dense(*arguments)), case.id


def test_the_shape_rule_agrees_with_the_result() -> None:
    for case in DENSE_CASES:
        arguments = case.arguments(torch.float16)
        expected = yat_dense(*arguments)
        with FakeTensorMode() as mode:
            fake = [mode.from_tensor(a) if isinstance(a, Tensor) else a for a in arguments]
            y = TORCH_OP(*fake)
        assert (y.shape, y.dtype) == (expected.shape, expected.dtype), case.id
