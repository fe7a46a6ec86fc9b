import logging
import math
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from nmn_export.errors import NmnExportError
from nmn_export.graph.capture import OPSETS, capture
from nmn_export.graph.fold import fold
from nmn_export.graph.functions import DEFINITIONS
from nmn_export.layers import YatConv1d, YatConv2d, YatDense
from nmn_export.models import AetherResNet, BasicBlock
from nmn_export.ops import DOMAIN, OPS
from nmn_export.runtime.arrays import to_numpy
from tests.graph.networks import Sum, assert_valid, output_of, runners


def to_onnx(
    model: nn.Module,
    inputs: dict[str, Tensor],
    axes: dict[str, dict[int, str]] | None = None,
    opset: int = 18,
    inline: bool = False,
) -> onnx.ModelProto:
    return ir.to_proto(capture(fold(model), inputs, axes or {}, opset, inline))


def small_resnet() -> AetherResNet:
    torch.manual_seed(0)
    return AetherResNet(BasicBlock, (1, 2), 5, "cifar", widths=(4, 6)).eval()


def yat_names(model: onnx.ModelProto) -> list[str]:
    return [node.name for node in model.graph.node if node.domain == DOMAIN]


@pytest.fixture(scope="module")
def resnet() -> tuple[AetherResNet, onnx.ModelProto]:
    model = small_resnet()
    axes = {"x": {0: "batch", 2: "height", 3: "width"}}
    return model, to_onnx(model, {"x": torch.randn(2, 3, 12, 12)}, axes)


def test_nodes_and_weights_are_named_after_their_modules(
    resnet: tuple[AetherResNet, onnx.ModelProto],
) -> None:
    _, model = resnet
    paths = ["layer1.0.yat_conv", "layer2.0.yat_conv", "layer2.1.yat_conv", "head"]
    assert yat_names(model) == paths
    for node in model.graph.node:
        if node.domain == DOMAIN:
            assert list(node.input[1:]) == [f"{node.name}.weight", f"{node.name}.bias"]
    others = {node.name for node in model.graph.node if node.domain != DOMAIN}
    assert {"conv1/Conv", "layer1.0.lin_conv/Conv", "layer2.0.shortcut/Conv"} <= others
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)


def test_every_op_has_a_definition() -> None:
    assert set(DEFINITIONS) == set(OPS)


def test_a_network_has_one_function_for_each_op_in_use(
    resnet: tuple[AetherResNet, onnx.ModelProto],
) -> None:
    _, model = resnet
    assert sorted((f.domain, f.name) for f in model.functions) == [
        (DOMAIN, "YatConv"),
        (DOMAIN, "YatDense"),
    ]
    only_dense = to_onnx(YatDense(4, 3), {"x": torch.randn(2, 4)})
    assert [f.name for f in only_dense.functions] == ["YatDense"]
    no_yat = to_onnx(nn.Linear(4, 3), {"input": torch.randn(2, 4)})
    assert not no_yat.functions
    assert DOMAIN not in {o.domain for o in no_yat.opset_import}


@pytest.mark.parametrize("shape", [(1, 3, 12, 12), (3, 3, 9, 14), (2, 3, 5, 4)])
def test_a_network_runs_at_sizes_other_than_the_traced_ones(
    resnet: tuple[AetherResNet, onnx.ModelProto], shape: tuple[int, ...]
) -> None:
    network, model = resnet
    assert_valid(model)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(x)
    for runner in runners(model):
        torch.testing.assert_close(output_of(runner, x=x), expected, rtol=2e-4, atol=1e-5)


def test_dynamic_sizes_keep_their_names(
    resnet: tuple[AetherResNet, onnx.ModelProto],
) -> None:
    _, model = resnet
    (x,), (output,) = model.graph.input, model.graph.output
    sizes = [d.dim_param or d.dim_value for d in x.type.tensor_type.shape.dim]
    assert (x.name, sizes) == ("x", ["batch", 3, "height", "width"])
    sizes = [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim]
    assert (output.name, sizes) == ("output", ["batch", 5])


def test_the_file_has_no_paths_of_the_machine_that_exported(
    resnet: tuple[AetherResNet, onnx.ModelProto],
) -> None:
    written = resnet[1].SerializeToString()
    here = str(Path(__file__).parents[2]).encode()
    for trace in (here, b"site-packages", b".py", b"stack_trace"):
        assert trace not in written, trace


def test_inlining_leaves_standard_ops_only(
    resnet: tuple[AetherResNet, onnx.ModelProto],
) -> None:
    network, _ = resnet
    x = torch.randn(2, 3, 12, 12)
    model = to_onnx(network, {"x": x}, {"x": {0: "batch"}}, inline=True)
    assert_valid(model)
    assert {node.domain for node in model.graph.node} == {""}
    assert [o.domain for o in model.opset_import] == [""]
    assert not model.functions
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    other = torch.randn(5, 3, 12, 12)
    with torch.no_grad():
        expected = network(other)
    for runner in runners(model):
        torch.testing.assert_close(output_of(runner, x=other), expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_makes_a_model_that_runs(opset: int) -> None:
    network = nn.Sequential(YatConv1d(3, 4, 3), nn.Flatten(), YatDense(16, 2))
    x = torch.randn(2, 3, 6)
    model = to_onnx(network, {"x": x}, {"x": {0: "batch"}}, opset)
    assert_valid(model)
    assert {o.domain: o.version for o in model.opset_import} == {"": opset, DOMAIN: 1}
    assert all(o.version == opset for f in model.functions for o in f.opset_import)
    expected = network.eval()(x).detach()
    for runner in runners(model):
        torch.testing.assert_close(output_of(runner, x=x), expected, rtol=1e-4, atol=1e-6)


def test_the_attributes_of_a_node_are_those_of_the_layer() -> None:
    layer = YatConv2d(4, 6, (3, 2), (2, 1), (1, 2), (1, 3), 2, epsilon=0.25, constant_alpha=True)
    model = to_onnx(nn.Sequential(layer), {"x": torch.randn(2, 4, 9, 9)})
    (node,) = model.graph.node
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    assert attributes == {
        "epsilon": 0.25,
        "alpha": pytest.approx(math.sqrt(2), rel=1e-7),
        "kernel_shape": [3, 2],
        "strides": [2, 1],
        "pads": [1, 2, 1, 2],
        "dilations": [1, 3],
        "group": 2,
        "plugin_namespace": b"ai.nmn",
        "plugin_version": b"1",
    }


def test_nonzero_padding_is_a_separate_op() -> None:
    layer = YatConv1d(2, 3, 3, padding=1, padding_mode="reflect").eval()
    x = torch.randn(2, 2, 7)
    model = to_onnx(layer, {"input": x})
    assert_valid(model)
    (yat,) = [n for n in model.graph.node if n.domain == DOMAIN]
    assert helper.get_attribute_value(next(a for a in yat.attribute if a.name == "pads")) == [0, 0]
    for runner in runners(model):
        torch.testing.assert_close(output_of(runner, input=x), layer(x).detach())


def test_a_model_that_is_a_layer_has_a_node_named_after_its_op() -> None:
    assert yat_names(to_onnx(YatDense(6, 3), {"x": torch.randn(2, 6)})) == ["YatDense"]


def test_a_layer_that_is_called_twice_has_two_nodes_of_the_same_weights() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.yat = YatDense(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.yat(self.yat(x))

    network = Twice().eval()
    x = torch.randn(3, 4)
    model = to_onnx(network, {"x": x})
    assert_valid(model)
    assert yat_names(model) == ["yat", "yat_2"]
    first, second = (n for n in model.graph.node if n.domain == DOMAIN)
    assert first.input[1] == second.input[1] == "yat.weight"
    for runner in runners(model):
        torch.testing.assert_close(output_of(runner, x=x), network(x).detach(), rtol=1e-4, atol=0)


def test_equal_biases_keep_their_own_names() -> None:
    network = nn.Sequential(YatDense(4, 4), YatDense(4, 4), YatDense(4, 4, bias=False))
    model = to_onnx(network, {"x": torch.randn(2, 4)})
    names = {t.name for t in model.graph.initializer}
    assert names >= {"0.bias", "1.bias", "2.bias"}


def test_an_op_without_a_bias_is_given_a_bias_of_zero() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("dense", torch.randn(3, 4))
            self.register_buffer("conv", torch.randn(2, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            y = torch.ops.nmn.yat_dense(x, self.dense, None, 1e-5, 1.0, False).transpose(1, 2)
            return torch.ops.nmn.yat_conv(y, self.conv, None, 0.1, 2.0, [1], [1, 1], [1], 1)

    network, x = Bare(), torch.randn(2, 5, 4)
    model = to_onnx(network, {"x": x}, {"x": {0: "n"}})
    assert_valid(model)
    assert all(len(n.input) == 3 for n in model.graph.node if n.domain == DOMAIN)
    for runner in runners(model):
        torch.testing.assert_close(output_of(runner, x=x), network(x), rtol=1e-4, atol=1e-6)


def test_several_inputs_and_outputs_keep_their_order() -> None:
    class Both(Sum):
        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return self.left(x), self.right(y)

    network = Both().eval()
    inputs = {"x": torch.randn(2, 6), "y": torch.randn(3, 6)}
    model = to_onnx(network, inputs, {"x": {0: "n"}, "y": {0: "m"}})
    assert [i.name for i in model.graph.input] == ["x", "y"]
    assert [o.name for o in model.graph.output] == ["output_0", "output_1"]
    for runner in runners(model):
        results = runner.run({name: to_numpy(t) for name, t in inputs.items()})
        for name, expected in zip(("output_0", "output_1"), network(**inputs), strict=True):
            torch.testing.assert_close(torch.tensor(results[name]), expected.detach())


def test_axes_of_one_name_vary_together() -> None:
    inputs = {"x": torch.randn(2, 6), "y": torch.randn(2, 6)}
    network = Sum().eval()
    model = to_onnx(network, inputs, {"x": {0: "n"}, "y": {0: "n"}})
    larger = {name: t.repeat(3, 1) for name, t in inputs.items()}
    for runner in runners(model):
        torch.testing.assert_close(output_of(runner, **larger), network(**larger).detach())


def test_capture_leaves_inputs_and_logging_as_they_were() -> None:
    x, level = torch.randn(2, 6), logging.getLogger("torch.onnx").level
    with pytest.raises(NmnExportError):
        to_onnx(YatDense(6, 3), {"x": x}, {"x": {1: "features"}})
    assert not vars(x)
    to_onnx(YatDense(6, 3), {"x": x}, {"x": {0: "n"}})
    assert not vars(x)
    assert logging.getLogger("torch.onnx").level == level
