import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from nmn_export import check, export
from nmn_export.adapt import adapt
from nmn_export.engine.graph.nodes import name_nodes
from nmn_export.engine.graph.weights import prepare_for_plugin
from nmn_export.layers import YatConv2d, YatDense, YatLayer
from nmn_export.report.inspect import inspect_model

BANK = {"tie_kernel_bank": True, "kernel_bank_id": "graph"}


@pytest.fixture(autouse=True)
def no_banks() -> None:
    YatLayer._KERNEL_BANKS.clear()


class Images(nn.Module):
    """Convolutions of one bank, two of them narrower than the bank."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(YatConv2d(4, n, 3, padding=1, **BANK) for n in (4, 8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[0](x) + self.layers[2](x) - self.layers[1](x)[:, :4]


def dense(*widths: int, **options: object) -> nn.Module:
    return nn.Sequential(*(YatDense(16, n, **BANK, **options) for n in widths))


def upstream(*widths: int) -> nn.Module:
    nmn = pytest.importorskip("nmn.torch.nmn")
    nmn.YatNMN._KERNEL_BANKS.clear()
    return nn.Sequential(*(nmn.YatNMN(16, n, **BANK) for n in widths))


NETWORKS = {
    "equal": (lambda: dense(16, 16, 16), (2, 16), [16, 16]),
    "narrower": (lambda: dense(16, 16, 5), (2, 16), [16, 16]),
    "normalised": (lambda: dense(16, 16, weight_normalized=True), (2, 16), [16, 16]),
    "images": (Images, (2, 4, 6, 6), [8, 4, 3, 3]),
    "upstream": (lambda: upstream(16, 16, 5), (2, 16), [16, 16]),
}


@pytest.mark.parametrize(("make", "shape", "bank"), NETWORKS.values(), ids=list(NETWORKS))
@pytest.mark.parametrize("dtype", [None, "float16"])
@pytest.mark.parametrize("inline", [False, True], ids=["functions", "inline"])
def test_a_bank_is_exported_once(tmp_path, make, shape, bank, dtype, inline) -> None:
    model, path = make().eval(), tmp_path / "m.onnx"
    result = export(model, torch.randn(shape), path, dtype=dtype, inline=inline)
    assert [c.passed for c in result.parity] == [True, True]
    weights = [t for t in onnx.load(path).graph.initializer if len(t.dims) > 1]
    assert [list(t.dims) for t in weights] == [bank]
    assert all(c.passed for c in check(path, model))


def test_layers_of_a_bank_are_inspected_as_wide_as_they_are(tmp_path) -> None:
    export(dense(16, 5), torch.randn(2, 16), tmp_path / "m.onnx")
    reports = inspect_model(onnx.load(tmp_path / "m.onnx"))
    assert [r.weight_shape for r in reports] == [(16, 16), (5, 16)]


def test_weights_of_different_layers_stay_apart(tmp_path) -> None:
    net = nn.Sequential(YatDense(16, 16), YatDense(16, 16), YatDense(16, 5))
    export(net, torch.randn(2, 16), tmp_path / "m.onnx")
    names = {t.name for t in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert {"0.weight", "1.weight", "2.weight"} <= names


def test_the_plugin_gets_prepared_weights_of_every_layer_of_a_bank(tmp_path) -> None:
    export(dense(16, 5), torch.randn(2, 16), tmp_path / "m.onnx")
    model = ir.load(tmp_path / "m.onnx")
    name_nodes(model)
    assert prepare_for_plugin(model, "bf16x6") == {}
    planes = [node.inputs[1] for node in model.graph if node.op_type == "YatDense"]
    assert [list(p.shape.numpy()) for p in planes if p is not None] == [[3, 16, 16], [3, 5, 16]]


def test_adapted_layers_of_a_bank_share_one_parameter() -> None:
    model = upstream(16, 5)
    adapted = adapt(model)
    assert adapted[0].weight is adapted[1].weight is model[0].weight
    assert adapted[1].tie_kernel_bank
    assert adapted[1].kernel_bank_id == "graph"
    assert not adapted[1].lazy
