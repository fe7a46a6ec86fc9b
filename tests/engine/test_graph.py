"""The graph that TensorRT gets, tested without TensorRT."""

import dataclasses
import math
from operator import attrgetter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper

from nmn_export import NmnExportError
from nmn_export.engine.graph.decomposition import decompose
from nmn_export.engine.graph.nodes import check_nodes, name_nodes, yat_nodes
from nmn_export.engine.graph.weights import CHECK, PREPARE, prepare_for_plugin
from nmn_export.graph.file import load
from nmn_export.ops import DOMAIN, OPS
from nmn_export.runtime.arrays import to_torch
from nmn_export.runtime.onnx_reference import OnnxReferenceRunner
from nmn_export.runtime.onnx_runtime import OnnxRuntimeRunner
from tests.cases import (
    CONV_CASES,
    CONV_TRANSPOSE_CASES,
    DENSE_CASES,
    attention_case,
    conv_case,
    conv_transpose_case,
    dense_case,
    with_dtypes,
)
from tests.graph.attention_networks import one_attention_node
from tests.graph.networks import one_node, output_of


def decomposed(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = ir.from_proto(model)
    name_nodes(graph)
    decompose(graph, {node.name for node in yat_nodes(graph)})
    return ir.to_proto(graph)


@pytest.mark.parametrize(
    ("case", "dtype"),
    with_dtypes((*DENSE_CASES, *CONV_CASES, *CONV_TRANSPOSE_CASES), torch.float16),
)
def test_a_decomposed_op_computes_the_same_as_its_body(case, dtype):
    model = one_node(case, dtype)
    result = decomposed(model)
    onnx.checker.check_model(result, full_check=True)
    assert {node.domain for node in result.graph.node} == {""}
    assert not result.functions
    x, *_ = case.arguments(dtype)
    expected = output_of(OnnxReferenceRunner(model), X=x)
    torch.testing.assert_close(
        output_of(OnnxReferenceRunner(result), X=x), expected, rtol=1e-4, atol=1e-5, equal_nan=True
    )


def test_computations_on_parameters_are_folded(small_file):
    graph = decomposed(load(small_file)).graph
    ops = [node.op_type for node in graph.node if node.name.startswith("yat_conv/")]
    assert len(ops) < 20
    assert not {"Where", "Shape", "Equal", "Constant", "Expand"} & set(ops)
    assert "yat_conv.weight" not in {tensor.name for tensor in graph.initializer}


@pytest.mark.parametrize("case", CONV_TRANSPOSE_CASES[::5], ids=attrgetter("id"))
def test_filters_of_a_transposed_convolution_are_folded_in_every_variant(case):
    graph = decomposed(one_node(case)).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type in {"Conv", "ConvTranspose"}]
    assert products
    for node in products:
        assert all(name in constants for name in node.input[1:]), node.name
    filters = math.prod(case.tensors()[1].shape)
    assert sum(math.prod(t.dims) >= filters > 1 for t in constants.values()) <= 1


def test_only_the_named_ops_are_decomposed(small_net, small_file):
    graph = ir.from_proto(load(small_file))
    decompose(graph, {"yat_conv"})
    assert [node.name for node in yat_nodes(graph)] == ["head"]
    assert not graph.functions
    names = [node.name for node in graph.graph]
    assert any(name.startswith("yat_conv/") for name in names)
    assert not any(name.startswith("head/") for name in names)


def test_a_whole_network_computes_the_same_when_decomposed(small_file):
    model = load(small_file)
    x = {"x": np.random.default_rng(0).standard_normal((3, 3, 10, 10), dtype=np.float32)}
    expected = OnnxRuntimeRunner(model).run(x)["output"]
    found = OnnxRuntimeRunner(decomposed(model)).run(x)["output"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "precision", "planes"),
    [
        (torch.float32, "bf16x6", 3),
        (torch.float32, "bf16x3", 2),
        (torch.float16, "bf16x6", 1),
        (torch.bfloat16, "bf16x6", 1),
    ],
)
def test_planes_add_up_to_the_weight(dtype, precision, planes):
    case = dense_case("odd-sizes")
    graph = ir.from_proto(one_node(case, dtype, opset=22))
    name_nodes(graph)
    before = {a.name: a.value for a in yat_nodes(graph)[0].attributes.values()}
    assert prepare_for_plugin(graph, precision) == {}
    (node,) = yat_nodes(graph)
    assert {a.name: a.value for a in node.attributes.values()} == before
    assert (node.domain, node.op_type) == (DOMAIN, "YatDense")
    x, *parts = node.inputs
    assert x.name == "X"
    values = [to_torch(part.const_value.numpy()) for part in parts]
    _, weight, bias, epsilon, alpha, _ = case.arguments(dtype)
    assert values[0].shape == (planes, 11, 16)
    whole = values[0].float().sum(0)
    torch.testing.assert_close(whole[:, :13], weight.float(), rtol=2.0 ** (-8 * planes), atol=0)
    assert not whole[:, 13:].any()
    norms = (weight.float().square().sum(1) + epsilon) / abs(alpha)
    torch.testing.assert_close(values[1], norms)
    torch.testing.assert_close(values[2], bias.float().expand(11))
    assert list(graph.graph.initializers) == [v.name for v in parts]


def test_every_op_with_a_weight_has_its_preparation_and_the_others_a_check():
    with_weight = {name for name, spec in OPS.items() if "W" in spec.inputs}
    assert PREPARE.keys() == with_weight
    assert CHECK.keys() == OPS.keys() - with_weight


@pytest.mark.parametrize(
    ("change", "reason"),
    [({}, ""), ({"power": -1.0}, "power of at least 0"), ({"scale": 1e30}, "2^-60 <= |α| <= 2^60")],
)
def test_attention_keeps_its_inputs_if_the_plugin_takes_it(change, reason):
    case = dataclasses.replace(attention_case("mask-of-keys"), **change)
    graph = ir.from_proto(one_attention_node(case))
    name_nodes(graph)
    unsupported = prepare_for_plugin(graph, "bf16x6")
    (node,) = yat_nodes(graph)
    assert [value.name for value in node.inputs] == ["Q", "K", "V", "M"]
    assert reason in unsupported.get(node.name, "")
    assert bool(unsupported) == bool(reason)


def test_a_spherical_op_has_the_scales_of_its_columns_too():
    graph = ir.from_proto(one_node(dense_case("spherical")))
    name_nodes(graph)
    prepare_for_plugin(graph, "bf16x6")
    (node,) = yat_nodes(graph)
    scale = to_torch(node.inputs[4].const_value.numpy())
    weight = dense_case("spherical").tensors()[1]
    torch.testing.assert_close(scale, 1 / (weight.norm(dim=1) + 1e-8))


@pytest.mark.parametrize("case", [conv_case("group"), conv_transpose_case("group")])
def test_filters_lie_tap_by_tap(case):
    graph = ir.from_proto(one_node(case))
    name_nodes(graph)
    prepare_for_plugin(graph, "bf16x6")
    (node,) = yat_nodes(graph)
    weight = case.tensors()[1]
    if node.op_type == "YatConvTranspose":
        halves = [half.transpose(0, 1) for half in weight.chunk(case.group)]
        weight = torch.cat(halves)
    planes = to_torch(node.inputs[1].const_value.numpy())
    filters, features = weight.shape[:2]
    rows = planes.float().sum(0).reshape(filters, weight[0, 0].numel(), -1)
    expected = weight.flatten(2).mT
    torch.testing.assert_close(rows[..., :features], expected, rtol=2.0**-20, atol=0)


def test_nodes_without_names_and_of_one_name_get_their_own():
    nodes = [
        helper.make_node("YatDense", ["X", "W", "B"], [f"Y{i}"], name=name, domain=DOMAIN)
        for i, name in enumerate(["same", "same", "", "other"])
    ]
    nodes.append(helper.make_node("Relu", ["X"], ["Z"], name="other"))
    value = helper.make_tensor_value_info("X", TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, "g", [value], [])
    model = ir.from_proto(helper.make_model(graph))
    name_nodes(model)
    assert [node.name for node in yat_nodes(model)] == ["same", "same_2", "Y2", "other_2"]


def test_a_name_that_something_else_has_is_not_given():
    nodes = [
        helper.make_node("YatDense", ["X", "W", "B"], [y], name=name, domain=DOMAIN)
        for y, name in (("Y0", "W"), ("Y1", "x"), ("Y2", "Z"), ("out", "out"), ("Y4", "out"))
    ]
    nodes += [helper.make_node("Relu", ["X"], ["Z"], name="relu")]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "X", "out")]
    weight = helper.make_tensor("W", TensorProto.FLOAT, [1], [1])
    graph = helper.make_graph(nodes, "g", values[:2], values[2:], [weight])
    model = ir.from_proto(helper.make_model(graph))
    name_nodes(model)
    assert [n.name for n in yat_nodes(model)] == ["W_2", "x_2", "Z_2", "out", "out_2"]


def test_values_of_a_body_never_take_the_name_of_a_node(small_file):
    graph = ir.from_proto(load(small_file))
    before = set(graph.graph.initializers)
    decompose(graph, {"yat_conv"})
    new = set(graph.graph.initializers) - before
    assert new
    assert all(name.startswith("yat_conv/") for name in new)
    onnx.checker.check_model(ir.to_proto(graph))


def one_edited(**attributes: object) -> onnx.ModelProto:
    model = one_node(dense_case("odd-sizes"))
    (node,) = [node for node in model.graph.node if node.domain == DOMAIN]
    kept = [a for a in node.attribute if a.name not in attributes]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in attributes.items())])
    return model


@pytest.mark.parametrize(
    ("attributes", "reported"),
    [
        ({"plugin_version": 1}, "YatDense has plugin_version as STRING; got INT on '"),
        ({"alpha": 2}, "YatDense has alpha as FLOAT; got INT on '"),
        ({"spherical": 1.0}, "YatDense has spherical as INT; got FLOAT on '"),
    ],
)
def test_an_attribute_of_another_type_is_reported(attributes, reported):
    with pytest.raises(NmnExportError) as caught:
        check_nodes(ir.from_proto(one_edited(**attributes)))
    assert reported in str(caught.value)


def test_a_missing_attribute_is_reported():
    model = one_node(conv_case("group"))
    (node,) = [node for node in model.graph.node if node.domain == DOMAIN]
    (strides,) = [a for a in node.attribute if a.name == "strides"]
    node.attribute.remove(strides)
    with pytest.raises(NmnExportError, match="YatConv has the attribute strides; got none on '"):
        check_nodes(ir.from_proto(model))


@pytest.mark.parametrize("empty", [True, False])
def test_a_missing_input_is_reported(empty):
    model = one_edited()
    (node,) = [node for node in model.graph.node if node.domain == DOMAIN]
    if empty:
        node.input[1] = ""
    else:
        node.input.pop()
    with pytest.raises(NmnExportError, match="YatDense has the inputs X, W, B; got") as caught:
        check_nodes(ir.from_proto(model))
    assert str(caught.value).count("\n") == 0


def test_a_missing_body_is_reported(small_file):
    model = load(small_file)
    del model.functions[:]
    graph = ir.from_proto(model)
    with pytest.raises(NmnExportError, match=r"got no function ai\.nmn::YatConv for 'yat_conv'"):
        decompose(graph, {"yat_conv"})
