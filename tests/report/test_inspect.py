import dataclasses
import importlib.util
from pathlib import Path

import ml_dtypes
import onnx
import pytest
import torch

from nmn_export import NmnExportError, export
from nmn_export.engine.build import build
from nmn_export.engine.plugin_library import find_plugin_library
from nmn_export.engine.process.messages import Layer
from nmn_export.engine.record import FileRecord, PluginRecord, read_record
from nmn_export.graph.file import load
from nmn_export.layers import YatConvTranspose2d
from nmn_export.report.doctor import Finding, examine
from nmn_export.report.inspect import engine_facts, inspect_model
from nmn_export.report.render import engine_table, op_table


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


def test_the_cost_of_a_transposed_convolution_is_that_of_its_input(tmp_path):
    layer = YatConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
    export(layer.eval(), torch.randn(2, 4, 5, 5), tmp_path / "m.onnx", check=False)
    (report,) = inspect_model(load(tmp_path / "m.onnx"))
    assert report.weight_shape == (4, 3, 3, 3)
    assert report.output_shape == (2, 6, 10, 10)
    assert report.attributes["output_padding"] == [1, 1]
    assert report.flops == 200 * (2 * 27 + 2) + 1200 * 6
    assert report.bytes == 4 * (200 + 4 * 27 + 6 + 1200)


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


def changed(path, edit):
    model = onnx.load(path)
    edit(next(n for n in model.graph.node if n.domain == "ai.nmn"), model.graph)
    return model


def test_an_op_without_its_inputs_is_reported(small_file):
    model = changed(small_file, lambda node, _: node.input.pop())
    with pytest.raises(
        NmnExportError, match=r"an input, weights and a bias, .*; got YatConv 'yat_"
    ):
        inspect_model(model)


def test_shapes_that_do_not_fit_are_reported(small_file, monkeypatch):
    def refuse(*_, **__):
        raise onnx.shape_inference.InferenceError("9 vs 8\n(op: Gemm)")

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", refuse)
    with pytest.raises(NmnExportError, match="The shapes in a file must be consistent; got 9 vs 8"):
        inspect_model(load(small_file))


def test_weights_that_are_computed_have_a_shape_too(small_file):
    def edit(node, graph):
        given = next(t for t in graph.initializer if t.name == node.input[1])
        graph.initializer.remove(given)
        graph.input.append(
            onnx.helper.make_tensor_value_info(given.name, given.data_type, given.dims)
        )

    assert inspect_model(changed(small_file, edit)) == inspect_model(load(small_file))


def test_doctor_lists_components_and_how_to_install_missing_ones():
    findings = {f.name: f for f in examine()}
    assert findings["PyTorch"].found
    assert findings["onnxruntime"].found
    assert all(f.found or f.fix for f in findings.values())


@pytest.fixture(scope="module")
def engine(small_file, tmp_path_factory):
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt_rtx is not installed")
    path = tmp_path_factory.mktemp("engine") / "small.engine"
    build(small_file, path, plugin="off", compute_capabilities=[86, 89], tensorrt="tensorrt-rtx")
    return path


def test_an_engine_is_described_from_its_record(engine):
    facts = dict(engine_facts(read_record(engine)))
    assert facts["engine"].startswith("small.engine, ")
    assert facts["model"].startswith("small.onnx, sha256 ")
    assert facts["built with"].startswith("tensorrt_rtx 1.")
    assert facts["runs on"] == "compute capability 8.6, 8.9"
    assert facts["float32 products"] == "no TF32"
    assert (facts["ⵟ ops in the plugin"], facts["ⵟ ops decomposed"]) == ("0", "2")
    assert "plugin library" not in facts
    assert facts["input"] == "x float32 ?x3x10x10, 1x3x10x10 to 8x3x10x10, tuned for 2x3x10x10"
    assert facts["output"] == "output float32 ?x5"
    assert "CONVOLUTION" in facts["layers"]
    assert engine_table(read_record(engine)).row_count == len(facts)


def test_plugin_layers_and_reasons_are_reported(engine):
    record = read_record(engine)
    library = FileRecord("libnmn_plugin.so", "0" * 64, 1)
    plugin = PluginRecord("auto", 1, 1, {"head": "it is too wide"}, library, "0.1.0", False)
    layers = [Layer("yat_conv", "PLUGIN_V3"), Layer("head/MatMul", "MATRIX_MULTIPLY")]
    facts = engine_facts(dataclasses.replace(record, plugin=plugin, layers=layers))
    assert ("ⵟ ops in the plugin", "1: yat_conv") in facts
    assert ("", "head: it is too wide") in facts
    assert ("plugin library", "libnmn_plugin.so 0.1.0, needed next to the engine") in facts
    within = dataclasses.replace(record, plugin=dataclasses.replace(plugin, embedded=True))
    assert ("plugin library", "libnmn_plugin.so 0.1.0, in the engine") in engine_facts(within)


def plugin_finding() -> Finding:
    return next(f for f in examine() if f.name == "TensorRT plugin")


def test_doctor_lists_what_engines_need():
    findings = {f.name: f for f in examine()}
    assert "nmn-export[tensorrt]" in findings["tensorrt"].fix
    assert "nmn-export[tensorrt-rtx]" in findings["tensorrt_rtx"].fix
    plugin = findings["TensorRT plugin"]
    assert "make plugin" in plugin.fix
    if find_plugin_library() is not None:
        assert plugin.found
        assert "for capabilities 8.0" in plugin.found


def test_doctor_survives_a_plugin_library_that_would_kill_it(tmp_path, monkeypatch):
    library = tmp_path / "libnmn_plugin.so"
    monkeypatch.setenv("NMN_EXPORT_PLUGIN", str(library))
    assert "must be a file" in plugin_finding().fix
    library.write_text("not a library")
    assert "not a shared library" in plugin_finding().fix
    # A library that is truncated after its headers crashes the process that loads it.
    source = next(Path(ml_dtypes.__file__).parent.glob("*.so")).read_bytes()
    library.write_bytes(source[:5000])
    finding = plugin_finding()
    assert finding.found is None
    assert finding.fix
