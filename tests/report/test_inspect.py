import onnx
import pytest

from nmn_export.graph.file import load
from nmn_export.report.doctor import examine
from nmn_export.report.inspect import inspect_model
from nmn_export.report.render import op_table


def test_ops_are_listed_with_shapes_costs_and_attributes(small_file):
    conv, dense = inspect_model(load(small_file))
    assert (conv.name, conv.op, conv.dtype) == ("yat_conv", "YatConv", "float32")
    assert conv.input_shape == ("batch", 8, 10, 10)
    assert conv.output_shape == ("batch", 6, 5, 5)
    assert conv.weight_shape == (6, 8, 3, 3)
    assert conv.attributes["strides"] == [2, 2]
    assert conv.parameters == 6 * 8 * 9 + 6
    assert conv.flops == 6 * 25 * (2 * 72 + 6) + 2 * 800
    assert conv.bytes == 4 * (800 + 6 * 72 + 6 + 150)
    assert dense.attributes["alpha"] == pytest.approx(2**0.5)
    assert dense.flops == 5 * (2 * 6 + 6) + 2 * 6


def test_the_table_leaves_defaults_out(small_file):
    cells = list(op_table(inspect_model(load(small_file))).columns[5].cells)
    assert "strides=2x2" in cells[0]
    assert "group" not in cells[0]
    assert "epsilon" not in cells[0]
    assert cells[1] == "alpha=1.41421"


def test_plugin_attributes_are_on_the_nodes_and_not_in_the_report(small_file):
    nodes = [n for n in onnx.load(small_file).graph.node if n.domain == "ai.nmn"]
    for node, report in zip(nodes, inspect_model(load(small_file)), strict=True):
        attributes = {a.name: a.s for a in node.attribute}
        assert attributes["plugin_namespace"] == b"ai.nmn"
        assert attributes["plugin_version"] == b"1"
        assert "plugin_version" not in report.attributes


def test_doctor_says_what_is_there_and_how_to_get_the_rest():
    findings = {f.name: f for f in examine()}
    assert findings["PyTorch"].found
    assert findings["onnxruntime"].found
    assert all(f.found or f.fix for f in findings.values())
