import math
from collections import OrderedDict
from operator import attrgetter

import onnx_ir as ir
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from nmn_export.graph.capture import OPSETS, capture
from nmn_export.graph.fold import fold
from nmn_export.layers import YatConv2d
from nmn_export.ops.conv import output_size
from nmn_export.runtime.onnx_runtime import OnnxRuntimeRunner
from tests.cases import CONV_CASES, ConvCase, conv_case, with_dtypes
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

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize(("case", "dtype"), with_dtypes(CONV_CASES, torch.float16, torch.bfloat16))
def test_the_body_is_near_exact_in_every_runtime(case: ConvCase, dtype: torch.dtype) -> None:
    arguments = full_bias(case.arguments(dtype))
    for options in (
        {},
        {"fixed": True},
        {"beside": CONV_CASES},
    ):  # the variants for this node, and the one that supports all cases
        model = one_node(case, dtype, **options)
        assert_valid(model)
        for runner in runners(model):
            y = output_of(runner, X=arguments[0])
            assert y.dtype == dtype
            assert_near_exact(y, case, arguments, bias_in_distance=True)
            assert_empty_gives_empty(runner, arguments[0], y)


@pytest.mark.parametrize("case", CONV_CASES, ids=attrgetter("id"))
def test_a_layer_becomes_one_op_with_its_definition(case: ConvCase) -> None:
    arguments = full_bias(case.arguments())
    x = arguments[0]
    # PyTorch treats a size of 1 as a constant, in the input and in the output.
    size = output_size(case.size, case.kernel, case.strides, case.pads, case.dilations)
    axes = {2 + i: f"n{i}" for i in range(case.rank) if case.size[i] > 1 and size[i] > 1}
    axes |= {0: "batch"} if case.batch > 1 else {}
    network = nn.Sequential(OrderedDict(yat=folded(case)))
    model = ir.to_proto(capture(network, {"x": x}, {"x": axes}, 18, False))
    assert_valid(model)
    assert_one_op_with_its_definition(model, "YatConv", "yat")
    larger = [size + i if i in axes else size for i, size in enumerate(x.shape)]
    for inputs in (x, case.scale * torch.randn(larger)):
        call = (inputs, *arguments[1:])
        for runner in runners(model):
            assert_near_exact(output_of(runner, x=inputs), case, call, bias_in_distance=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_layer_converted_to_half_precision_is_near_exact(dtype: torch.dtype) -> None:
    case = conv_case("near")
    arguments = full_bias(case.arguments(dtype))
    layer = YatConv2d(4, 6, 3, padding=1, bias=False, use_alpha=False)
    network = fold(nn.Sequential(OrderedDict(yat=layer)), dtype)
    network.yat.load_state_dict({"weight": arguments[1], "bias": arguments[2]})
    axes = {"x": {0: "n", 2: "height", 3: "width"}}
    model = ir.to_proto(capture(network, {"x": arguments[0]}, axes, 18, False))
    assert_valid(model)
    assert_one_op_with_its_definition(model, "YatConv", "yat")
    for runner in runners(model):
        y = output_of(runner, x=arguments[0])
        assert y.dtype == dtype
        assert_near_exact(y, case, arguments, bias_in_distance=True)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_opset_gives_the_same_numbers(opset: int, dtype: torch.dtype) -> None:
    case = conv_case("near-group")
    arguments = full_bias(case.arguments(dtype))
    model = one_node(case, dtype, opset)
    assert_valid(model)
    for runner in runners(model):
        y = output_of(runner, X=arguments[0])
        assert_near_exact(y, case, arguments, bias_in_distance=True)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_any_geometry_is_near_exact_in_onnx_runtime(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3), "rank")

    def per_axis(least: int, most: int, count: int = rank) -> st.SearchStrategy[tuple[int, ...]]:
        return st.tuples(*[st.integers(least, most)] * count)

    group = data.draw(st.integers(1, 3), "group")
    case = ConvCase(
        "drawn",
        size=data.draw(per_axis(1, 6), "size"),
        kernel=data.draw(per_axis(1, 4), "kernel"),
        batch=data.draw(st.integers(1, 3), "batch"),
        channels=group * data.draw(st.integers(1, 3), "channels a group"),
        out_channels=group * data.draw(st.integers(1, 3), "outputs a group"),
        strides=data.draw(per_axis(1, 4), "strides"),
        pads=data.draw(per_axis(0, 5, 2 * rank), "pads"),
        dilations=data.draw(per_axis(1, 3), "dilations"),
        group=group,
        bias=data.draw(st.sampled_from(["none", "vector", "scalar"]), "bias"),
        alpha=data.draw(st.sampled_from([1.0, 0.0, -0.6, 2**0.5]), "alpha"),
        epsilon=data.draw(st.sampled_from([1e-5, 0.007, 1.0]), "epsilon"),
    )
    assume(min(output_size(case.size, case.kernel, case.strides, case.pads, case.dilations)) > 0)
    dtype = data.draw(st.sampled_from(DTYPES), "dtype")
    arguments = full_bias(case.arguments(dtype))
    runner = OnnxRuntimeRunner(one_node(case, dtype))
    y = output_of(runner, X=arguments[0])
    assert_near_exact(y, case, arguments, bias_in_distance=True)
    assert_empty_gives_empty(runner, arguments[0], y)


@pytest.mark.parametrize(("dtype", "bias"), [(torch.float16, 300), (torch.bfloat16, 1e30)])
@pytest.mark.parametrize("alpha", [1.0, -1.0])
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_half_precisions_saturate(dtype: torch.dtype, bias: float, alpha: float) -> None:
    # At the origin the distance is zero in any arithmetic.
    zeros = {"size": (3, 3), "batch": 1, "out_channels": 1, "values": "zeros"}
    case = ConvCase("saturating", alpha=alpha, bias_scale=bias, **zeros)
    for runner in runners(one_node(case, dtype)):
        y = output_of(runner, X=case.tensors(dtype)[0])
        assert y.item() == math.copysign(torch.finfo(dtype).max, alpha), runner.name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_nan_stays_nan_and_in_its_patches(dtype: torch.dtype) -> None:
    case = conv_case("1d")
    x = case.tensors(dtype)[0]
    x[0, 1, 0] = float("nan")
    for runner in runners(one_node(case, dtype)):
        y = output_of(runner, X=x)
        assert y[0, :, 0].isnan().all(), runner.name
        assert y[0, :, 1:].isfinite().all(), runner.name
        assert y[1].isfinite().all(), runner.name
