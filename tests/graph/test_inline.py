import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from nmn_export.errors import NmnExportError
from nmn_export.graph.capture import capture
from nmn_export.graph.fold import fold
from nmn_export.layers import YatConv1d, YatConv2d, YatDense
from nmn_export.runtime.arrays import to_numpy
from tests.graph.networks import Sum, assert_valid, runners


class Twice(nn.Module):
    """Calls one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.yat = YatDense(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.yat(self.yat(x))


def image_network() -> nn.Module:
    return nn.Sequential(
        YatConv2d(3, 4, 3), nn.ReLU(), YatConv2d(4, 4, 3, groups=2, dilation=2), nn.Flatten(),
        YatDense(16, 5), YatDense(5, 5, spherical=True), YatDense(5, 3),
    )  # fmt: skip


NETWORKS = {
    "one layer": (lambda: YatDense(6, 3), {"x": (2, 6)}),
    "a layer twice": (Twice, {"x": (2, 6)}),
    "two inputs": (Sum, {"x": (2, 6), "y": (2, 6)}),
    "images": (image_network, {"x": (2, 3, 8, 8)}),
    "sequences": (lambda: nn.Sequential(YatConv1d(2, 4, 3), YatConv1d(4, 4, 2)), {"x": (2, 2, 9)}),
}


def exported(
    model: nn.Module,
    shapes: dict[str, tuple[int, ...]],
    dtype: torch.dtype | None = None,
    inline: bool = True,
) -> tuple[onnx.ModelProto, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    inputs = {name: torch.randn(s, generator=generator).to(dtype) for name, s in shapes.items()}
    opset = 22 if dtype is torch.bfloat16 else 18
    return ir.to_proto(capture(fold(model, dtype), inputs, {}, opset, inline)), inputs


def repeated(names: list[str]) -> set[str]:
    return {name for name in names if names.count(name) > 1}


@pytest.mark.parametrize(("make", "shapes"), NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("inline", [False, True], ids=["functions", "inline"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_names_are_unique(make, shapes, inline: bool, dtype: torch.dtype) -> None:
    model, _ = exported(make(), shapes, dtype, inline)
    for graph in (model.graph, *model.functions):
        names = [node.name for node in graph.node]
        assert all(names)
        assert not repeated(names)
        values = [name for node in graph.node for name in node.output]
        initializers = [t.name for t in getattr(graph, "initializer", ())]
        assert not repeated([*values, *initializers])


@pytest.mark.parametrize(("make", "shapes"), NETWORKS.values(), ids=NETWORKS)
def test_an_inlined_file_computes_the_same(make, shapes) -> None:
    network = make().eval()
    model, inputs = exported(network, shapes)
    assert_valid(model)
    with torch.no_grad():
        expected = network(*inputs.values())
    for runner in runners(model):
        (y,) = runner.run({name: to_numpy(t) for name, t in inputs.items()}).values()
        torch.testing.assert_close(torch.tensor(y), expected, rtol=1e-4, atol=1e-6)


def test_inlined_nodes_are_named_after_their_layers() -> None:
    model, _ = exported(image_network(), NETWORKS["images"][1])
    names = {node.name for node in model.graph.node}
    assert {"0/Conv", "0/MatMul", "2/Conv", "4/Gemm", "5/Gemm", "6/Gemm"} <= names
    assert {name.split("/")[0] for name in names} == {"0", "1", "2", "3", "4", "5", "6"}
    model, _ = exported(Twice(), NETWORKS["a layer twice"][1])
    assert {"yat/Gemm", "yat_2/Gemm"} <= {node.name for node in model.graph.node}
    origins = {(p.key, p.value) for node in model.graph.node for p in node.metadata_props}
    assert origins == {("nmn_export.layer", "yat")}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_constants_are_tensors_unless_they_refer_to_an_attribute(dtype: torch.dtype) -> None:
    for inline in (False, True):
        model, _ = exported(image_network(), NETWORKS["images"][1], dtype, inline)
        constants = [
            attribute
            for graph in (model.graph, *model.functions)
            for node in graph.node
            if node.op_type == "Constant"
            for attribute in node.attribute
        ]
        assert constants
        referring = {a.name for a in constants if a.ref_attr_name}
        assert referring == (set() if inline else {"value_float", "value_int"})
        assert {a.name for a in constants if not a.ref_attr_name} == {"value"}


class Clash(nn.Module):
    """Has a parameter and a buffer with the names of outputs, and two outputs."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.yat = YatDense(6, 3)
        for name in names:
            self.register_buffer(name, torch.randn(3))

    def forward(self, x: Tensor) -> tuple[Tensor, ...] | Tensor:
        y = self.yat(x)
        buffers = dict(self.named_buffers(recurse=False)).values()
        outputs = tuple(y * buffer for buffer in buffers)
        return outputs if len(outputs) > 1 else outputs[0]


@pytest.mark.parametrize(
    ("names", "inline"),
    [
        (("output",), False),
        (("output",), True),
        (("output_0", "output_1"), False),
        (("output_1", "output_0", "output"), True),
    ],
)
def test_weights_may_have_the_names_of_outputs(names: tuple[str, ...], inline: bool) -> None:
    network = Clash(*names).eval()
    model, inputs = exported(network, {"x": (2, 6)}, inline=inline)
    assert_valid(model)
    count = len(names)
    outputs = [o.name for o in model.graph.output]
    assert outputs == (["output"] if count == 1 else [f"output_{i}" for i in range(count)])
    weights = {t.name for t in model.graph.initializer}
    assert {f"{name}.value" if name in outputs else name for name in names} <= weights
    with torch.no_grad():
        expected = network(inputs["x"])
    for runner in runners(model):
        found = runner.run({"x": to_numpy(inputs["x"])})
        for name, y in zip(outputs, (expected,) if count == 1 else expected, strict=True):
            torch.testing.assert_close(torch.tensor(found[name]), y, rtol=1e-4, atol=1e-6)


def test_an_input_with_the_name_of_an_output_is_refused() -> None:
    class Named(nn.Module):
        def forward(self, output: Tensor) -> Tensor:
            return 2 * output

    with pytest.raises(NmnExportError) as refused:
        exported(Named(), {"output": (2, 6)})
    assert str(refused.value) == (
        "Inputs must have other names than the outputs of the file: output; got an input called "
        "output. Rename that argument of the model's forward."
    )
