"""Which ⵟ ops the plugin computes, counted in the layers of TensorRT."""

import onnx
import pytest
import torch
from torch import nn

from nmn_export import CheckError, NmnExportError, build, export
from nmn_export.engine.graph.assignment import PluginAssignment
from nmn_export.engine.plugin_library import find_plugin_library
from nmn_export.engine.process.messages import Network
from nmn_export.layers import YatDense


class Clash(nn.Module):
    """A layer that is called twice, and a parameter with the name of its second node."""

    def __init__(self) -> None:
        super().__init__()
        self.d = YatDense(8, 8)
        self.d_2 = nn.Parameter(torch.randn(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.d(self.d(x) + self.d_2)


class Mixed(nn.Module):
    """A decomposed layer, and one with the name of a value in the body of the first."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.a = YatDense(8, 8, constant_alpha=1e30)
        self.add_module(name, YatDense(8, 8))
        self.name = name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.get_submodule(self.name)(self.a(x) * 1e-30)


@pytest.mark.parametrize(
    ("net", "divided"), [(Clash(), (2, 0)), (Mixed("b"), (1, 1)), (Mixed("w"), (1, 1))]
)
def test_names_of_layers_and_of_constants_do_not_collide(net, divided, tmp_path):
    export(net.eval(), torch.randn(2, 8), tmp_path / "m.onnx", check=False)
    record = build(tmp_path / "m.onnx", tmp_path / "e.engine", compute_capabilities=[89]).record
    assert (record.plugin.layers, record.plugin.decomposed) == divided
    assert record.layer_counts["PLUGIN_V3"] == divided[0]
    assert record.plugin.others == []


def test_the_fix_for_a_missing_layer_depends_on_the_mode():
    for mode, kind, advice in (
        ("require", CheckError, "or use --plugin auto"),
        ("auto", NmnExportError, "Use --plugin off to"),
    ):
        assignment = PluginAssignment(mode, frozenset({"a", "b"}), {}, find_plugin_library())
        with pytest.raises(kind, match=r"got 'a'.*made no plugin layer of it") as caught:
            assignment.count(Network([], [], []), embedded=False)
        assert advice in str(caught.value)
        assert ("--plugin require" in str(caught.value)) == (mode == "require")


@pytest.mark.parametrize("plugin", ["auto", "off"])
def test_a_file_without_bodies_builds_only_with_the_plugin(small_file, tmp_path, plugin):
    model = onnx.load(small_file)
    del model.functions[:]
    onnx.save(model, tmp_path / "m.onnx")
    options = {"plugin": plugin, "compute_capabilities": [89]}
    if plugin == "auto":
        assert build(tmp_path / "m.onnx", tmp_path / "e.engine", **options).record.plugin.layers
        return
    with pytest.raises(NmnExportError, match="must define a function for every ⵟ op that the pl"):
        build(tmp_path / "m.onnx", tmp_path / "e.engine", **options)
