import math
from collections import OrderedDict
from operator import attrgetter

import onnx_ir as ir
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from nmn_export.errors import NmnExportError
from nmn_export.graph.capture import OPSETS, capture
from nmn_export.graph.fold import fold
from nmn_export.layers import YatConv2d, YatConvTranspose2d
from nmn_export.ops.conv_transpose import output_size
from nmn_export.runtime.onnx_runtime import OnnxRuntimeRunner
from tests.cases import (
    CONV_TRANSPOSE_CASES,
    ConvTransposeCase,
    conv_transpose_case,
    with_dtypes,
)
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

STRIDED = conv_transpose_case("stride-3")
"""Beside a node, it excludes the variants of the body for stride 1 and for equal phases."""


def arguments_of(case: ConvTransposeCase, dtype: torch.dtype = torch.float32) -> tuple[object, ...]:
    return full_bias(case.arguments(dtype), case.out_channels)


@pytest.mark.parametrize(
    ("case", "dtype"), with_dtypes(CONV_TRANSPOSE_CASES, torch.float16, torch.bfloat16)
)
def test_the_body_is_near_exact_in_every_runtime(
    case: ConvTransposeCase, dtype: torch.dtype
) -> None:
    arguments = arguments_of(case, dtype)
    # The variants for this node, for strides of all kinds, and for all cases.
    variants = ({}, {"fixed": True}, {"beside": (STRIDED,)}, {"beside": CONV_TRANSPOSE_CASES})
    for options in variants:
        model = one_node(case, dtype, **options)
        assert_valid(model)
        for runner in runners(model):
            y = output_of(runner, X=arguments[0])
            assert y.dtype == dtype
            assert_near_exact(y, case, arguments, bias_in_distance=True)
            assert_empty_gives_empty(runner, arguments[0], y)


@pytest.mark.parametrize(
    ("case", "products"),
    [
        (conv_transpose_case("plain"), "Conv"),
        (conv_transpose_case("dilations"), "Conv"),
        (conv_transpose_case("upsample"), "Conv"),
        (ConvTransposeCase("no-overlap", kernel=(2, 2), strides=(2, 2)), "ConvTranspose"),
        (ConvTransposeCase("one-axis", size=(5,), kernel=(4,), strides=(2,)), "ConvTranspose"),
        (conv_transpose_case("upsample-odd"), "ConvTranspose"),
        (conv_transpose_case("stride-3"), "ConvTranspose"),
        (conv_transpose_case("dilations-and-strides"), "Conv"),
    ],
    ids=lambda value: value.id if isinstance(value, ConvTransposeCase) else value,
)
def test_the_fastest_variant_is_chosen(case: ConvTransposeCase, products: str) -> None:
    (body,) = one_node(case).functions
    of_all_channels = [n for n in body.node if len(n.input) == 3 and "Conv" in n.op_type]
    assert [node.op_type for node in of_all_channels] == [products]


@pytest.mark.parametrize("case", CONV_TRANSPOSE_CASES[1::3], ids=attrgetter("id"))
def test_a_layer_becomes_one_op_with_its_definition(case: ConvTransposeCase) -> None:
    arguments = arguments_of(case)
    x = arguments[0]
    # PyTorch treats a size of 1 as a constant, in the input and in the output.
    geometry = (case.kernel, case.strides, case.pads, case.dilations, case.output_padding)
    size = output_size(case.size, *geometry)
    axes = {2 + i: f"n{i}" for i in range(case.rank) if case.size[i] > 1 and size[i] > 1}
    axes |= {0: "batch"} if case.batch > 1 else {}
    network = nn.Sequential(OrderedDict(yat=folded(case)))
    model = ir.to_proto(capture(network, {"input": x}, {"input": axes}, 18, False))
    assert_valid(model)
    assert_one_op_with_its_definition(model, "YatConvTranspose", "yat")
    larger = [size + i if i in axes else size for i, size in enumerate(x.shape)]
    for inputs in (x, case.scale * torch.randn(larger)):
        call = (inputs, *arguments[1:])
        for runner in runners(model):
            y = output_of(runner, input=inputs)
            assert_near_exact(y, case, call, bias_in_distance=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_layer_converted_to_half_precision_is_near_exact(dtype: torch.dtype) -> None:
    case = conv_transpose_case("near-strides")
    arguments = arguments_of(case, dtype)
    layer = YatConvTranspose2d(4, 6, case.kernel, 2, bias=False, use_alpha=False)
    network = fold(nn.Sequential(OrderedDict(yat=layer)), dtype)
    network.yat.load_state_dict({"weight": arguments[1], "bias": arguments[2]})
    axes = {"input": {0: "n", 2: "height", 3: "width"}}
    model = ir.to_proto(capture(network, {"input": arguments[0]}, axes, 18, False))
    assert_valid(model)
    assert_one_op_with_its_definition(model, "YatConvTranspose", "yat")
    for runner in runners(model):
        y = output_of(runner, input=arguments[0])
        assert y.dtype == dtype
        assert_near_exact(y, case, arguments, bias_in_distance=True)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("case_id", ["near-group", "upsample", "group-1d", "dilations-and-strides"])
def test_every_opset_gives_the_same_numbers(case_id: str, opset: int) -> None:
    case = conv_transpose_case(case_id)
    for dtype in (torch.float32, torch.bfloat16):
        arguments = arguments_of(case, dtype)
        model = one_node(case, dtype, opset)
        assert_valid(model)
        for runner in runners(model):
            y = output_of(runner, X=arguments[0])
            assert_near_exact(y, case, arguments, bias_in_distance=True)


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_any_geometry_is_near_exact_in_onnx_runtime(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3), "rank")

    def per_axis(least: int, most: int, count: int = rank) -> st.SearchStrategy[tuple[int, ...]]:
        return st.tuples(*[st.integers(least, most)] * count)

    group = data.draw(st.integers(1, 3), "group")
    strides = data.draw(per_axis(1, 4), "strides")
    dilations = data.draw(per_axis(1, 3), "dilations")
    limits = [max(s, d) - 1 for s, d in zip(strides, dilations, strict=True)]
    case = ConvTransposeCase(
        "drawn",
        size=data.draw(per_axis(1, 4), "size"),
        kernel=data.draw(per_axis(1, 5), "kernel"),
        batch=data.draw(st.integers(1, 3), "batch"),
        channels=group * data.draw(st.integers(1, 3), "channels a group"),
        out_channels=group * data.draw(st.integers(1, 3), "outputs a group"),
        strides=strides,
        pads=data.draw(per_axis(0, 3, 2 * rank), "pads"),
        dilations=dilations,
        output_padding=data.draw(st.tuples(*[st.integers(0, most) for most in limits]), "extra"),
        group=group,
        bias=data.draw(st.sampled_from(["none", "vector", "scalar"]), "bias"),
        alpha=data.draw(st.sampled_from([1.0, 0.0, -0.6, 2**0.5]), "alpha"),
        epsilon=data.draw(st.sampled_from([1e-5, 0.007, 1.0]), "epsilon"),
    )
    geometry = (case.kernel, case.strides, case.pads, case.dilations, case.output_padding)
    assume(min(output_size(case.size, *geometry)) > 0)
    dtype = data.draw(st.sampled_from(DTYPES), "dtype")
    arguments = arguments_of(case, dtype)
    runner = OnnxRuntimeRunner(one_node(case, dtype))
    y = output_of(runner, X=arguments[0])
    assert_near_exact(y, case, arguments, bias_in_distance=True)
    assert_empty_gives_empty(runner, arguments[0], y)


@pytest.mark.parametrize(("dtype", "bias"), [(torch.float16, 300), (torch.bfloat16, 1e30)])
@pytest.mark.parametrize("alpha", [1.0, -1.0])
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_half_precisions_saturate(dtype: torch.dtype, bias: float, alpha: float) -> None:
    # At the origin the distance is zero in any arithmetic.
    zeros = {"size": (1, 1), "kernel": (1, 1), "batch": 1, "out_channels": 1, "values": "zeros"}
    case = ConvTransposeCase("saturating", alpha=alpha, bias_scale=bias, **zeros)
    for runner in runners(one_node(case, dtype)):
        y = output_of(runner, X=case.tensors(dtype)[0])
        assert y.item() == math.copysign(torch.finfo(dtype).max, alpha), runner.name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride", [1, 2, 3], ids=lambda s: f"stride-{s}")
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_nan_stays_nan_and_in_its_block(dtype: torch.dtype, stride: int) -> None:
    case = ConvTransposeCase("nan", size=(7,), kernel=(4,), strides=(stride,))
    x = case.tensors(dtype)[0]
    x[0, 1, 2] = float("nan")
    block = torch.arange(6 * stride + 4)
    block = (block >= 2 * stride) & (block < 2 * stride + 4)
    for runner in runners(one_node(case, dtype)):
        y = output_of(runner, X=x)
        assert y[0, :, block].isnan().all(), runner.name
        assert y[0, :, ~block].isfinite().all(), runner.name
        assert y[1].isfinite().all(), runner.name


class Decoder(nn.Module):
    """Halves an image, and doubles it to the size that it had."""

    def __init__(self) -> None:
        super().__init__()
        self.down = YatConv2d(3, 4, 3, stride=2, padding=1)
        self.up = YatConvTranspose2d(4, 3, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(self.down(x), output_size=x.shape[2:])


@pytest.mark.parametrize("size", [(7, 8), (8, 7)], ids=str)
def test_the_output_size_of_a_call_is_the_output_padding_of_its_node(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = Decoder().eval()
    x = torch.randn(2, 3, *size)
    onnx_model = ir.to_proto(capture(fold(model), {"x": x}, {"x": {0: "batch"}}, 18, False))
    (node,) = [node for node in onnx_model.graph.node if node.op_type == "YatConvTranspose"]
    (padding,) = [a.ints for a in node.attribute if a.name == "output_padding"]
    assert list(padding) == [1 - n % 2 for n in size]
    for runner in runners(onnx_model):
        torch.testing.assert_close(output_of(runner, x=x), model(x), rtol=1e-4, atol=1e-6)


def test_an_output_padding_that_depends_on_a_dynamic_axis_is_refused() -> None:
    axes = {"x": {2: "height"}}
    with pytest.raises(NmnExportError, match=r"must be the same multiple .* set output_padding of"):
        capture(fold(Decoder().eval()), {"x": torch.randn(2, 3, 8, 8)}, axes, 18, False)


def test_an_output_size_may_follow_a_dynamic_axis() -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = YatConvTranspose2d(3, 3, 3, stride=2, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.up(x, output_size=(2 * x.shape[2], 2 * x.shape[3]))

    model = Doubled().eval()
    axes = {"x": {2: "height", 3: "width"}}
    onnx_model = ir.to_proto(capture(fold(model), {"x": torch.randn(2, 3, 4, 5)}, axes, 18, False))
    x = torch.randn(2, 3, 7, 6)
    y = output_of(OnnxRuntimeRunner(onnx_model), x=x)
    torch.testing.assert_close(y, model(x), rtol=1e-4, atol=1e-6)
