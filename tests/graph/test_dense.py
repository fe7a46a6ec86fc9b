import math
from collections import OrderedDict
from operator import attrgetter

import onnx_ir as ir
import pytest
import torch
from torch import nn

from nmn_export.graph.capture import OPSETS, capture
from nmn_export.graph.fold import fold
from nmn_export.layers import YatDense
from tests.cases import DENSE_CASES, DenseCase, dense_case, with_dtypes
from tests.enclosure import assert_near_exact
from tests.graph.networks import (
    assert_empty_gives_empty,
    assert_one_op_with_its_definition,
    assert_valid,
    folded,
    full_bias,
    one_node,
    output_of,
    runners,
)


@pytest.mark.parametrize(("case", "dtype"), with_dtypes(DENSE_CASES, torch.float16, torch.bfloat16))
def test_the_body_is_near_exact_in_every_runtime(case: DenseCase, dtype: torch.dtype) -> None:
    arguments = full_bias(case.arguments(dtype))
    for options in (
        {},
        {"beside": DENSE_CASES},
    ):  # the variant for this node, and the one that supports all cases
        model = one_node(case, dtype, **options)
        assert_valid(model)
        for runner in runners(model):
            y = output_of(runner, X=arguments[0])
            assert y.dtype == dtype
            assert_near_exact(y, case, arguments, bias_in_distance=True)
            if case.batch:
                assert_empty_gives_empty(runner, arguments[0], y)


@pytest.mark.parametrize("case", DENSE_CASES, ids=attrgetter("id"))
def test_a_layer_becomes_one_op_with_its_definition(case: DenseCase) -> None:
    arguments = full_bias(case.arguments())
    x = arguments[0]
    axes = {i: f"n{i}" for i, size in enumerate(case.batch) if size > 1}
    network = nn.Sequential(OrderedDict(yat=folded(case)))
    model = ir.to_proto(capture(network, {"x": x}, {"x": axes}, 18, False))
    assert_valid(model)
    assert_one_op_with_its_definition(model, "YatDense", "yat")
    other = x.repeat(*(2 if i in axes else 1 for i in range(x.ndim)))
    for inputs in (x, other):
        call = (inputs, *arguments[1:])
        for runner in runners(model):
            assert_near_exact(output_of(runner, x=inputs), case, call, bias_in_distance=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_layer_converted_to_half_precision_is_near_exact(dtype: torch.dtype) -> None:
    case = dense_case("near")
    arguments = full_bias(case.arguments(dtype))
    network = fold(nn.Sequential(OrderedDict(yat=YatDense(64, 5, bias=False, alpha=False))), dtype)
    network.yat.load_state_dict({"weight": arguments[1], "bias": arguments[2]})
    model = ir.to_proto(capture(network, {"x": arguments[0]}, {"x": {0: "n"}}, 18, False))
    assert_valid(model)
    assert_one_op_with_its_definition(model, "YatDense", "yat")
    for runner in runners(model):
        y = output_of(runner, x=arguments[0])
        assert y.dtype == dtype
        assert_near_exact(y, case, arguments, bias_in_distance=True)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_opset_gives_the_same_numbers(opset: int, dtype: torch.dtype) -> None:
    case = dense_case("spherical-near")
    arguments = full_bias(case.arguments(dtype))
    model = one_node(case, dtype, opset)
    assert_valid(model)
    for runner in runners(model):
        y = output_of(runner, X=arguments[0])
        assert_near_exact(y, case, arguments, bias_in_distance=True)


@pytest.mark.parametrize(("dtype", "bias"), [(torch.float16, 300), (torch.bfloat16, 1e30)])
@pytest.mark.parametrize("alpha", [1.0, -1.0])
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_half_precisions_saturate(dtype: torch.dtype, bias: float, alpha: float) -> None:
    # At the origin the distance is zero in any arithmetic.
    zeros = {"batch": (1,), "out_features": 1, "values": "zeros"}
    case = DenseCase("saturating", alpha=alpha, bias_scale=bias, **zeros)
    for runner in runners(one_node(case, dtype)):
        y = output_of(runner, X=case.tensors(dtype)[0])
        assert y.item() == math.copysign(torch.finfo(dtype).max, alpha), runner.name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_nan_stays_nan_in_its_row(dtype: torch.dtype) -> None:
    case = dense_case("plain")
    x = case.tensors(dtype)[0]
    x[1, 2] = float("nan")
    for runner in runners(one_node(case, dtype)):
        y = output_of(runner, X=x)
        assert y[1].isnan().all(), runner.name
        assert y[[0, 2, 3]].isfinite().all(), runner.name


def test_products_whose_squares_overflow_give_the_right_result() -> None:
    x = torch.full((1, 8), 1e12)
    case = DenseCase("huge", batch=(1,), out_features=1, bias="none")
    model = one_node(case)
    weight = case.tensors()[1]
    dot = (x.double() @ weight.double().T).item()
    expected = dot**2 / (x.double() - weight.double()).square().sum().item()
    for runner in runners(model):
        assert output_of(runner, X=x).item() == pytest.approx(expected, rel=1e-5), runner.name


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0), (0, 0, 0)], ids=str)
def test_any_axis_may_be_empty(shape: tuple[int, ...]) -> None:
    x = torch.empty(*shape, 6)
    for runner in runners(one_node(dense_case("three-leading-axes"))):
        assert output_of(runner, X=x).shape == (*shape, 5)
