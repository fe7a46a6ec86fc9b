"""An exported file in the parser of TensorRT, without preparation, as `trtexec` passes it."""

import subprocess
import sys

import onnx
import pytest
import torch
from onnx import helper

from nmn_export import export
from nmn_export.engine.plugin_library import find_plugin_library
from nmn_export.engine.process.client import _environment
from nmn_export.layers import MultiHeadYatAttention, YatConv2d

PARSE = """
import collections, sys
import tensorrt_rtx as trt

logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
builder = trt.Builder(logger)
if len(sys.argv) > 2:
    assert builder.get_plugin_registry().load_library(sys.argv[2])
network = builder.create_network()
parser = trt.OnnxParser(network, logger)
if not parser.parse_from_file(sys.argv[1]):
    print("refused", *[parser.get_error(i).node_operator() for i in range(parser.num_errors)])
    sys.exit()
types = collections.Counter(network.get_layer(i).type.name for i in range(network.num_layers))
print("layers", types["PLUGIN_V3"], types["CONVOLUTION"])
for i in range(network.num_layers):
    layer = network.get_layer(i)
    if layer.type == trt.LayerType.CONVOLUTION:
        layer.__class__ = trt.IConvolutionLayer
        print("strides", *layer.stride_nd)
"""


@pytest.fixture
def parse(tmp_path):
    """Parse a file in a separate process that may crash, and return the output."""

    def parse(path, library=None):
        command = [sys.executable, "-c", PARSE, path, *([library.path] if library else [])]
        environment = _environment("tensorrt_rtx", tmp_path)
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if "[TRT]" not in line]

    return parse


def test_the_plugin_takes_unprepared_nodes(small_file, parse):
    assert parse(small_file, find_plugin_library())[0] == "layers 2 1"


def test_a_file_of_standard_ops_needs_no_plugin(small_net, tmp_path, parse):
    path = tmp_path / "m.onnx"
    export(small_net, torch.randn(2, 3, 10, 10), path, inline=True, check=False)
    assert parse(path) == ["layers 0 2", "strides 1 1", "strides 2 2"]


@pytest.mark.parametrize("is_causal", [False, True])
def test_the_function_of_an_attention_needs_no_plugin(tmp_path, parse, is_causal):
    """Its attributes are numbers, which the parser looks up."""
    path = tmp_path / "m.onnx"
    net = MultiHeadYatAttention(8, 2, num_key_heads=1, is_causal=is_causal).eval()
    export(net, torch.randn(2, 4, 8), path, check=False)
    assert parse(path) == ["layers 0 0"]


@pytest.mark.parametrize("dilation", [1, 2])
def test_geometry_that_the_parser_does_not_look_up_is_refused_and_not_taken_for_one(
    tmp_path, parse, dilation
):
    path = tmp_path / "m.onnx"
    net = YatConv2d(4, 4, 3, stride=2, padding=1, dilation=dilation).eval()
    export(net, torch.randn(2, 4, 10, 10), path, check=False)
    assert parse(path)[-1].startswith("refused")


def test_a_reference_to_strides_is_still_not_looked_up(tmp_path, parse):
    """If this fails, TensorRT supports such attributes, and bodies need no decomposition here."""
    strides = onnx.AttributeProto(
        name="strides", ref_attr_name="strides", type=onnx.AttributeProto.INTS
    )
    convolution = helper.make_node("Conv", ["X", "W"], ["Y"])
    convolution.attribute.append(strides)
    opset = helper.make_opsetid("", 18)
    function = helper.make_function(
        "test", "Body", ["X", "W"], ["Y"], [convolution], [opset], attributes=["strides"]
    )
    graph = helper.make_graph(
        [helper.make_node("Body", ["x", "w"], ["y"], domain="test", strides=[2, 3])],
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 2, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [helper.make_tensor("w", onnx.TensorProto.FLOAT, [2, 2, 1, 1], [1.0] * 4)],
    )
    path = tmp_path / "m.onnx"
    opsets = [opset, helper.make_opsetid("test", 1)]
    model = helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=10)
    onnx.save(model, path)
    assert parse(path)[1] == "strides 1 1"
