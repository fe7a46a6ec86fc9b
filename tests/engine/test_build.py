"""Engines built by the real TensorRT-RTX, which needs no GPU for that."""

import json
from dataclasses import asdict
from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper
from torch import nn

import nmn_export.graph.file
from nmn_export import BuilderOptions, CheckError, NmnExportError, build, export
from nmn_export.engine.plugin_library import find_plugin_library
from nmn_export.engine.process.messages import Message, Step
from nmn_export.engine.record import read_record
from nmn_export.layers import YatConv2d, YatDense
from tests.cases import CONV_CASES, CONV_TRANSPOSE_CASES, DENSE_CASES
from tests.engine.conftest import CAPABILITIES
from tests.graph.networks import one_node

AETHER_YAT_LAYERS = 9  # a ⵟ convolution in each of eight blocks, and the head


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_yat_layer_of_aether_resnet_is_one_plugin_layer(aether_engine, capability):
    built = aether_engine(compute_capabilities=[capability], plugin="require")
    record = built.record
    plugin_layers = [layer.name for layer in record.layers if layer.type == "PLUGIN_V3"]
    blocks = [f"layer{i}.{j}.yat_conv" for i in (1, 2, 3, 4) for j in (0, 1)]
    assert plugin_layers == [*blocks, "head"]
    assert (record.plugin.layers, record.plugin.decomposed) == (AETHER_YAT_LAYERS, 0)
    assert b"YatConv" in built.path.read_bytes()


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_without_the_plugin_no_layer_is_one(aether_engine, capability):
    built = aether_engine(compute_capabilities=[capability], plugin="off")
    record = built.record
    assert "PLUGIN_V3" not in record.layer_counts
    assert record.layer_counts["CONVOLUTION"] == 12 + 8  # that of a ⵟ convolution is one
    assert (record.plugin.layers, record.plugin.decomposed) == (0, AETHER_YAT_LAYERS)
    assert (record.plugin.library, record.plugin.reasons) == (None, {})
    assert b"YatConv" not in built.path.read_bytes()


def test_one_engine_is_built_for_several_compute_capabilities(aether_engine):
    record = aether_engine(compute_capabilities=CAPABILITIES).record
    assert record.compute_capabilities == ["8.9", "12.0"]
    assert record.plugin.layers == AETHER_YAT_LAYERS


def test_an_engine_with_its_plugin_embedded_holds_the_whole_library(aether_engine):
    library = find_plugin_library()
    assert library
    content = library.path.read_bytes()
    plain = aether_engine(compute_capabilities=[89], plugin="require")
    embedded = aether_engine(compute_capabilities=[89], plugin="require", embed_plugin=True)
    assert embedded.record.plugin.embedded
    assert content in embedded.path.read_bytes()
    grown = embedded.record.engine.bytes - plain.record.engine.bytes
    assert len(content) <= grown < len(content) + 4096
    assert content not in plain.path.read_bytes()


def test_the_record_describes_the_engine(aether_engine, aether_file):
    built = aether_engine(compute_capabilities=[89], plugin="require")
    assert read_record(built.path) == built.record
    reported = json.loads(built.path.with_name(f"{built.path.name}.json").read_text())
    assert reported == json.loads(json.dumps(asdict(built.record)))
    assert reported["format"] == 1
    assert reported["tensorrt_package"] == "tensorrt_rtx"
    assert reported["tf32"] is False
    assert reported["inputs"] == [{"name": "x", "dtype": "float32", "shape": [-1, 3, 224, 224]}]
    assert reported["outputs"] == [{"name": "output", "dtype": "float32", "shape": [-1, 1000]}]
    assert reported["profile"]["x"] == {
        "min": [1, 3, 224, 224],
        "opt": [2, 3, 224, 224],
        "max": [8, 3, 224, 224],
    }
    assert sum(reported["layer_counts"].values()) == len(reported["layers"])
    assert reported["engine_layers"] is None
    assert reported["model"]["bytes"] == aether_file.stat().st_size
    assert reported["model_metadata"]["nmn_export.source"].endswith("AetherResNet")


def test_a_half_precision_model_keeps_its_dtype(small_net, tmp_path):
    path = tmp_path / "half.onnx"
    export(small_net, torch.randn(2, 3, 10, 10), path, dtype="float16", check=False)
    for plugin in ("require", "off"):
        record = build(path, tmp_path / "e.engine", plugin=plugin, compute_capabilities=[89]).record
        assert [t.dtype for t in (*record.inputs, *record.outputs)] == ["float16", "float16"]


def test_tf32_lets_the_plugin_take_fewer_planes(aether_engine):
    exact = aether_engine(compute_capabilities=[89], plugin="require").record
    fast = aether_engine(compute_capabilities=[89], plugin="require", tf32=True).record
    assert (exact.tf32, fast.tf32) == (False, True)
    # Two bfloat16 planes per ⵟ weight instead of three.
    assert fast.engine.bytes < 0.9 * exact.engine.bytes


CASES = [
    pytest.param(case, id=f"{type(case).__name__}-{case.id}")
    for case in (*DENSE_CASES, *CONV_CASES, *CONV_TRANSPOSE_CASES)
]


@pytest.mark.parametrize("case", CASES[::6])
@pytest.mark.parametrize("plugin", ["require", "off"])
def test_tensorrt_takes_ops_of_every_kind_both_ways(case, plugin, tmp_path):
    onnx.save(one_node(case, torch.float16), tmp_path / "m.onnx")
    x, *_ = case.arguments(torch.float16)
    shapes = {"X": tuple(x.shape)}
    built = build(
        tmp_path / "m.onnx",
        tmp_path / "m.engine",
        shapes=shapes,
        plugin=plugin,
        compute_capabilities=[120],
    )
    found = built.record.plugin
    assert (found.layers, found.decomposed) == ((1, 0) if plugin == "require" else (0, 1))


def test_weights_in_a_file_of_their_own_are_read(small_net, tmp_path, monkeypatch):
    monkeypatch.setattr(nmn_export.graph.file, "EXTERNAL_DATA_THRESHOLD", 100)
    export(small_net, torch.randn(2, 3, 10, 10), tmp_path / "m.onnx", check=False)
    assert (tmp_path / "m.onnx.data").is_file()
    record = build(tmp_path / "m.onnx", tmp_path / "e.engine", compute_capabilities=[89]).record
    assert record.plugin.layers == 2


class WeightsFromTheModel(nn.Module):
    """A ⵟ layer whose weights are an input, and one with parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.head = YatDense(4, 3)

    def forward(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        y = torch.ops.nmn.yat_dense(x, weight * 2, torch.zeros(4), 1e-5, 1.0, False)
        return self.head(y)


def test_weights_that_are_computed_go_to_the_plugin_as_they_are(tmp_path):
    path = tmp_path / "m.onnx"
    export(WeightsFromTheModel().eval(), (torch.randn(2, 5), torch.randn(4, 5)), path, check=False)
    record = build(path, tmp_path / "e.engine", plugin="require", compute_capabilities=[89]).record
    assert record.plugin.layers == 2


def test_progress_and_messages_are_reported(small_file, tmp_path):
    reported = []
    build(
        small_file,
        tmp_path / "e.engine",
        compute_capabilities=[89],
        options=BuilderOptions(verbosity="verbose", profiling_verbosity="detailed"),
        report=reported.append,
    )
    steps = [step for step in reported if isinstance(step, Step)]
    assert steps[0].parent is None
    assert {step.phase for step in steps if step.done == step.total} == {s.phase for s in steps}
    assert any(isinstance(message, Message) for message in reported)


def edited(source: Path, target: Path, **attributes: object) -> Path:
    """Change attributes of the ⵟ convolution in a file."""
    model = onnx.load(source)
    (node,) = [node for node in model.graph.node if node.op_type == "YatConv"]
    kept = [a for a in node.attribute if a.name not in attributes]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in attributes.items())])
    onnx.save(model, target)
    return target


REFUSED = {
    "another plugin version": ({"plugin_version": "2"}, "it asks for version 2 of a plugin"),
    "an α that the kernels do not take": ({"alpha": 1e30}, "The kernels support α = 0 and"),
}


@pytest.mark.parametrize(("attributes", "reason"), REFUSED.values(), ids=REFUSED)
def test_unsupported_ops_are_decomposed_and_reported(small_file, tmp_path, attributes, reason):
    path = edited(small_file, tmp_path / "m.onnx", **attributes)
    record = build(path, tmp_path / "e.engine", compute_capabilities=[89]).record
    assert (record.plugin.layers, record.plugin.decomposed) == (1, 1)
    assert reason in record.plugin.reasons["yat_conv"]
    assert "PLUGIN_V3" in record.layer_counts
    with pytest.raises(CheckError, match=r"compute every ⵟ op; got 'yat_conv'") as caught:
        build(path, tmp_path / "f.engine", plugin="require", compute_capabilities=[89])
    assert reason in str(caught.value)
    assert not (tmp_path / "f.engine").exists()


def test_ops_that_the_plugin_refuses_are_decomposed_and_reported(small_file, tmp_path):
    tiny, huge = (1, 3, 10, 10), (8_000_000, 3, 10, 10)
    options = {"shapes": {"x": (tiny, tiny, huge)}, "compute_capabilities": [89]}
    record = build(small_file, tmp_path / "e.engine", **options).record
    assert (record.plugin.layers, record.plugin.decomposed) == (0, 2)
    assert "must be smaller than 2^31" in record.plugin.reasons["yat_conv"]
    with pytest.raises(CheckError, match=r"require requires .* smaller than 2\^31"):
        build(small_file, tmp_path / "f.engine", plugin="require", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.engine", "e.engine.json"]


@pytest.mark.usefixtures("no_plugin")
def test_without_a_library_all_ops_are_decomposed_and_reported(small_file, tmp_path):
    record = build(small_file, tmp_path / "e.engine", compute_capabilities=[89]).record
    assert record.plugin.layers == 0
    assert record.plugin.reasons == dict.fromkeys(
        ("yat_conv", "head"), "there is no plugin library"
    )


@pytest.mark.usefixtures("no_plugin")
@pytest.mark.parametrize("options", [{"plugin": "require"}, {"embed_plugin": True}])
def test_a_required_library_that_is_missing_is_reported(small_file, tmp_path, options):
    with pytest.raises(NmnExportError, match="need the plugin library; got none") as caught:
        build(small_file, tmp_path / "e.engine", compute_capabilities=[89], **options)
    assert caught.value.exit_code == 2


def test_a_capability_without_kernels_is_reported(small_file, tmp_path):
    with pytest.raises(NmnExportError, match=r"got compute capability 7\.5 with --plugin require"):
        build(small_file, tmp_path / "e.engine", plugin="require", compute_capabilities=[75])


def test_a_file_of_standard_ops_has_nothing_for_the_plugin(small_net, tmp_path):
    path = tmp_path / "m.onnx"
    export(small_net, torch.randn(2, 3, 10, 10), path, inline=True, check=False)
    record = build(path, tmp_path / "e.engine", compute_capabilities=[89]).record
    assert (record.plugin.layers, record.plugin.decomposed) == (0, 0)
    with pytest.raises(CheckError, match="needs a file with ⵟ ops; got standard ops only"):
        build(path, tmp_path / "e.engine", plugin="require", compute_capabilities=[89])


def test_an_op_that_tensorrt_does_not_support_is_reported_by_name(small_file, tmp_path):
    model = onnx.load(small_file)
    model.graph.node.append(
        helper.make_node("Unheard", ["output"], ["more"], name="the_node", domain="com.example")
    )
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    model.graph.output[0].name = "more"
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(NmnExportError, match=r"parse the model; got Unheard the_node: .*Plugin"):
        build(tmp_path / "m.onnx", tmp_path / "e.engine", compute_capabilities=[89])


def test_shared_weights_are_prepared_for_each_node(tmp_path):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = YatConv2d(3, 3, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.conv(x))

    export(Twice().eval(), torch.randn(2, 3, 5, 5), tmp_path / "m.onnx", check=False)
    record = build(tmp_path / "m.onnx", tmp_path / "e.engine", compute_capabilities=[89]).record
    plugins = [layer.name for layer in record.layers if layer.type == "PLUGIN_V3"]
    assert plugins == ["conv", "conv_2"]
