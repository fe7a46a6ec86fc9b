import inspect
from collections import Counter
from collections.abc import Iterator, Sequence

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from nmn_export.errors import NmnExportError
from nmn_export.graph.capture import capture
from nmn_export.graph.fold import fold
from nmn_export.graph.names import unique
from nmn_export.layers import YatConv1d, YatConv2d, YatDense
from nmn_export.models import AetherResNet, BasicBlock
from tests.cases import CONV_CASES, DENSE_CASES, ConvCase, DenseCase, conv_case, dense_case
from tests.graph.networks import Sum, assert_valid, one_node, output_of, runners


class Clashing(nn.Module):
    """A layer and a parameter or buffer of any name; an input of any name; one output or two."""

    def __init__(self, name: str, kind: str, outputs: int) -> None:
        super().__init__()
        if kind == "parameter":
            self.register_parameter(name, nn.Parameter(torch.randn(4)))
        else:
            self.register_buffer(name, torch.randn(4))
        self.yat = YatDense(4, 4)
        self.name, self.outputs = name, outputs

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        y = self.yat(inputs[0]) + getattr(self, self.name)
        return y if self.outputs == 1 else (y, *[y * i for i in range(1, self.outputs)])


class Repeated(nn.Module):
    """Calls a layer twice, and another one that has the name of the second call."""

    def __init__(self) -> None:
        super().__init__()
        self.yat = YatDense(4, 4)
        self.yat_2 = YatDense(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.yat_2(self.yat(self.yat(x)))


class Branches(nn.Module):
    """Has ⵟ layers in the branches of an `If`."""

    def __init__(self) -> None:
        super().__init__()
        self.yat = YatDense(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, self.yat, lambda x: self.yat(x * 2) + 1, (x,))


NETWORKS = {
    "dense": (nn.Sequential(YatDense(4, 3), YatDense(3, 3)), [(2, 4)]),
    "a layer by itself": (YatDense(4, 3, spherical=True), [(2, 4)]),
    "convolutions": (nn.Sequential(YatConv1d(4, 4, 3, groups=2), YatConv1d(4, 2, 1)), [(2, 4, 9)]),
    "dilated": (nn.Sequential(YatConv2d(2, 2, 2, dilation=2), YatConv2d(2, 2, 2)), [(2, 2, 9, 9)]),
    "resnet": (AetherResNet(BasicBlock, (1, 2), 5, "cifar", widths=(4, 6)), [(2, 3, 12, 12)]),
    "two inputs": (Sum(), [(2, 6), (2, 6)]),
    "repeated": (Repeated(), [(2, 4)]),
    "branches": (Branches(), [(2, 4)]),
}

BODIES = (
    *map(dense_case, ("plain", "three-leading-axes", "spherical")),
    *map(conv_case, ("1d", "group", "dilations", "pads-beyond-the-kernel")),
)


def to_onnx(model: nn.Module, inputs: dict[str, Tensor], inline: bool = False) -> onnx.ModelProto:
    return ir.to_proto(capture(fold(model), inputs, {}, 18, inline))


def graphs(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield graph
                yield from graphs(graph.node)


def repeated_names(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Return the names of nodes, and of the values of a graph or function, that occur twice."""
    bodies = (model.graph, *graphs(model.graph.node))
    nodes = [n.name for owner in (*bodies, *model.functions) for n in owner.node]
    scopes = {"graph": [v for g in bodies for v in (*g.input, *g.initializer)]}
    values = {scope: [v.name for v in values] for scope, values in scopes.items()}
    values["graph"] += [v for g in bodies for n in g.node for v in n.output]
    for function in model.functions:
        outputs = [v for n in function.node for v in n.output]
        values[function.name] = [*function.input, *outputs]
    return {
        kind: [name for name, count in Counter(names).items() if count > 1 or not name]
        for kind, names in {"nodes": nodes, **values}.items()
    }


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_no_name_is_used_twice(network: str, inline: bool) -> None:
    model, shapes = NETWORKS[network]
    names = inspect.signature(model.forward).parameters
    inputs = {name: torch.randn(shape) for name, shape in zip(names, shapes, strict=False)}
    proto = to_onnx(model, inputs, inline)
    onnx.checker.check_model(proto, full_check=True)
    assert not any(repeated_names(proto).values())
    assert bool(proto.functions) != inline


@pytest.mark.parametrize("case", BODIES, ids=lambda case: case.id)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_no_name_is_used_twice_in_a_body(case: DenseCase | ConvCase, dtype: torch.dtype) -> None:
    every = DENSE_CASES if isinstance(case, DenseCase) else CONV_CASES
    for beside in ((), every):
        model = one_node(case, dtype, beside=beside)
        model.graph.node[0].name = "layer"
        assert not any(repeated_names(model).values())


def test_inlined_nodes_and_their_values_are_named_after_their_layer() -> None:
    model, shapes = NETWORKS["resnet"]
    proto = to_onnx(model, {"x": torch.randn(shapes[0])}, inline=True)
    by_name = {node.name: node for node in proto.graph.node}
    layers = ("layer1.0.yat_conv", "layer2.0.yat_conv", "layer2.1.yat_conv", "head")
    for layer in layers:
        assert by_name[f"{layer}/Clip"].op_type == "Clip"
        assert list(by_name[f"{layer}/quarter"].output) == [f"{layer}/quarter"]
    others = [name for name in by_name if not name.startswith(tuple(f"{s}/" for s in layers))]
    assert {"conv1/Conv", "layer1.0.lin_conv/Conv"} <= set(others)
    assert not any(name.split("_")[0] in {"half", "tmp", "YatConv"} for name in others)


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_constants_are_tensors(network: str, inline: bool) -> None:
    model, shapes = NETWORKS[network]
    names = inspect.signature(model.forward).parameters
    inputs = {name: torch.randn(shape) for name, shape in zip(names, shapes, strict=False)}
    proto = to_onnx(model, inputs, inline)
    owners = (proto.graph, *graphs(proto.graph.node), *proto.functions)
    constants = [n for owner in owners for n in owner.node if n.op_type == "Constant"]
    assert constants
    for node in constants:
        (attribute,) = node.attribute
        assert attribute.name == "value" or (attribute.ref_attr_name and not inline), node


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("kind", ["parameter", "buffer"])
@pytest.mark.parametrize(
    ("name", "outputs"),
    [("output", 1), ("output_1", 2), ("output_0", 2), ("x", 1), ("yat_dense", 1), ("val_0", 1)],
)
def test_a_weight_of_any_name_is_exported(name: str, outputs: int, kind: str, inline: bool) -> None:
    network, x = Clashing(name, kind, outputs).eval(), torch.randn(2, 4)
    model = to_onnx(network, {"x": x}, inline)
    assert_valid(model)
    expected = network(x) if outputs > 1 else (network(x),)
    names = ["output"] if outputs == 1 else ["output_0", "output_1"]
    assert [v.name for v in model.graph.input] == ["x"]
    assert [v.name for v in model.graph.output] == names
    for runner in runners(model):
        results = runner.run({"x": x.numpy()})
        for key, y in zip(names, expected, strict=True):
            torch.testing.assert_close(torch.tensor(results[key]), y.detach())


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("name", ["yat.weight", "yat.bias", "extra", "add", "yat/quarter"])
def test_an_input_of_any_other_name_keeps_it(name: str, inline: bool) -> None:
    # The input has the shape of the weight. With the same name, it would replace the weight.
    network, x = Clashing("extra", "parameter", 1).eval(), torch.randn(4, 4)
    model = to_onnx(network, {name: x}, inline)
    assert_valid(model)
    assert [v.name for v in model.graph.input] == [name]
    for runner in runners(model):
        torch.testing.assert_close(output_of(runner, **{name: x}), network(x).detach())


@pytest.mark.parametrize(("name", "outputs"), [("output", 1), ("output_0", 2), ("output_1", 2)])
def test_an_input_that_has_the_name_of_an_output_is_refused(name: str, outputs: int) -> None:
    with pytest.raises(NmnExportError) as raised:
        to_onnx(Clashing("extra", "buffer", outputs), {name: torch.randn(2, 4)})
    assert str(raised.value) == (
        f"Inputs and outputs have different names; got an input '{name}', which is the name of an "
        "output. Rename that argument of the model's forward."
    )


def test_outputs_may_be_weights_that_have_the_names_of_each_other() -> None:
    class Swapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.output_0 = nn.Parameter(torch.tensor([0.0]))
            self.output_1 = nn.Parameter(torch.tensor([1.0]))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return self.output_1, self.output_0, x + 1

    x = torch.randn(3)
    (runner, _) = runners(to_onnx(Swapped(), {"x": x}))
    results = runner.run({"x": x.numpy()})
    assert [results["output_0"].item(), results["output_1"].item()] == [1.0, 0.0]


def test_a_second_call_does_not_take_the_name_of_a_module() -> None:
    model = to_onnx(Repeated(), {"x": torch.randn(2, 4)})
    yat = [node for node in model.graph.node if node.op_type == "YatDense"]
    assert [node.name for node in yat] == ["yat", "yat_3", "yat_2"]
    assert yat[2].input[1] == "yat_2.weight"


@pytest.mark.parametrize(
    ("wanted", "reserved", "names"),
    [
        (["a", "b"], [], ["a", "b"]),
        (["a", "a", "a"], [], ["a", "a_2", "a_3"]),
        (["a", "a", "a_2", "a_2"], [], ["a", "a_3", "a_2", "a_2_2"]),
        (["a", "a_2"], ["a"], ["a_3", "a_2"]),
    ],
)
def test_unique(wanted: list[str], reserved: list[str], names: list[str]) -> None:
    assert unique(wanted, reserved) == names
