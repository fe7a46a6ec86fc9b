import math

import onnx
import pytest
import torch
from torch import nn

from nmn_export import NmnExportError, export
from nmn_export.graph.file import load
from nmn_export.layers import MultiHeadYatAttention
from nmn_export.report.inspect import OpReport, inspect_model
from nmn_export.report.render import op_json, op_table
from tests.cases import attention_case
from tests.graph.attention_networks import one_attention_node


def report_of(model: onnx.ModelProto) -> OpReport:
    (report,) = inspect_model(model)
    return report


def test_an_attention_is_listed_with_shapes_costs_and_attributes(tmp_path):
    net = nn.Sequential(MultiHeadYatAttention(24, 6, num_key_heads=2, is_causal=True)).eval()
    path = tmp_path / "m.onnx"
    axes = {0: "batch", 1: "tokens"}
    export(net, torch.randn(2, 5, 24), path, dynamic_shapes={"input": axes}, check=False)
    report = report_of(load(path))
    assert (report.name, report.op, report.dtype) == ("0", "YatAttention", "float32")
    assert report.input_shape == ("batch", 6, "tokens", 4)
    assert report.weight_shape == ("batch", 2, "tokens", 4)
    assert report.output_shape == ("batch", 6, "tokens", 4)
    assert report.parameters == 0
    assert report.attributes["scale"] == pytest.approx(0.5)
    table = op_table([report])
    assert list(table.columns[5].cells) == ["scale=0.5 is_causal=1"]
    assert '"weight_shape": [\n        "batch",\n        2' in op_json([report], {})


def test_an_attention_costs_two_products_and_passes_over_the_scores():
    case = attention_case("odd-sizes")
    model = one_attention_node(case, torch.float16)
    q, k, v, _ = case.tensors()
    for value, tensor in zip(model.graph.input, (q, k, v), strict=True):
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, 10, tensor.shape))
    report = report_of(model)
    scores = math.prod((2, 3, 7, 11))
    assert report.flops == scores * (2 * 13 + 2 * 5 + 10) + 2 * (q.numel() + k.numel())
    output = 2 * 3 * 7 * 5
    assert report.bytes == 2 * (q.numel() + k.numel() + v.numel() + 1 + output)
    assert report.dtype == "float16"


def test_an_attention_without_its_inputs_is_reported():
    model = one_attention_node(attention_case("plain"))
    model.graph.node[0].input.pop()
    with pytest.raises(NmnExportError, match=r"has the inputs Q, K, V, M, .*; got '.*' of Q, K, V"):
        inspect_model(model)


def test_an_unknown_op_is_reported():
    model = one_attention_node(attention_case("plain"))
    model.graph.node[0].op_type = "YatOther"
    with pytest.raises(NmnExportError, match=r"A ⵟ op is YatDense or .*; got YatOther"):
        inspect_model(model)
