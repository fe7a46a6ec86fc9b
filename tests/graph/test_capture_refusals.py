import pytest
import torch
from torch import Tensor, nn

from nmn_export.errors import NmnExportError
from nmn_export.graph.capture import DynamicAxes, capture
from nmn_export.graph.fold import fold
from nmn_export.layers import YatConv2d, YatDense
from tests.graph.networks import Sum


class Branching(nn.Module):
    """Branches on a value."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Untranslatable(nn.Module):
    """Uses an op that has no translation to ONNX."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvals(x).real


def refusal(
    model: nn.Module,
    inputs: dict[str, Tensor],
    axes: DynamicAxes | None = None,
    opset: int = 18,
) -> str:
    with pytest.raises(NmnExportError) as raised:
        capture(fold(model), inputs, axes or {}, opset, False)
    return str(raised.value)


X = {"x": torch.randn(2, 6)}


@pytest.mark.parametrize("opset", [0, 17, 24])
def test_an_opset_out_of_range(opset: int) -> None:
    message = refusal(YatDense(6, 3), X, opset=opset)
    assert message == f"opset must be in 18 to 23; got {opset}. Use 18."


def test_a_dynamic_axis_of_no_input() -> None:
    message = refusal(YatDense(6, 3), X, {"image": {0: "batch"}})
    assert message == (
        "A dynamic axis must belong to an input; got 'image'; the inputs are x. Use one of these "
        "names."
    )


@pytest.mark.parametrize("axis", [2, -1])
def test_a_dynamic_axis_that_the_input_has_not(axis: int) -> None:
    message = refusal(YatDense(6, 3), X, {"x": {axis: "batch"}})
    assert message == f"Input 'x' has axes 0 to 1; got dynamic axis {axis}. Choose one of them."


def test_a_dynamic_axis_of_size_one() -> None:
    message = refusal(YatDense(6, 3), {"x": torch.randn(1, 6)}, {"x": {0: "batch"}})
    assert "The example needs a size of at least 2 on a dynamic axis" in message
    assert "got shape (1, 6) of 'x', whose axis 0 is dynamic. Give 'x' a size of 2" in message


def test_dynamic_axes_of_one_name_and_two_sizes() -> None:
    inputs = {"x": torch.randn(2, 6), "y": torch.randn(3, 6)}
    message = refusal(Sum(), inputs, {"x": {0: "n"}, "y": {0: "n"}})
    assert message == (
        "Dynamic axes with the same name must have the same size; got 2 and 3 for 'n'. "
        "Use different names, or an example with equal sizes."
    )


@pytest.mark.parametrize(
    ("model", "shape", "axes", "fixed"),
    [
        (YatDense(6, 3), (2, 6), {0: "n", 1: "features"}, "x:1"),
        (nn.Sequential(YatConv2d(4, 3, 2)), (2, 4, 5, 5), {0: "n", 1: "channels", 2: "h"}, "x:1"),
        (nn.Sequential(nn.Flatten(), YatDense(24, 3)), (2, 4, 6), {0: "n", 2: "w"}, "x:2"),
        (nn.Sequential(YatConv2d(4, 3, 5)), (2, 4, 5, 6), {2: "h", 3: "w"}, "x:2"),
    ],
    ids=["features", "channels", "flattened", "example-too-small"],
)
def test_a_dynamic_axis_that_the_model_fixes(
    model: nn.Module, shape: tuple[int, ...], axes: dict[int, str], fixed: str
) -> None:
    message = refusal(model, {"x": torch.randn(shape)}, {"x": axes})
    assert message == (
        "A model must work for all sizes of a dynamic axis; got a model that fixes the size of "
        f"{fixed}. Do not make that axis dynamic. If a feature map of the example has size 1 "
        "there, give a larger example."
    )


def test_layers_of_two_dtypes() -> None:
    inputs = {"x": torch.randn(2, 6), "y": torch.randn(2, 6)}
    message = refusal(Sum(dtype=torch.float16), inputs)
    assert message == (
        "All YatDense ops of a model must have the same dtype: they share one function; "
        "got float and float16. Export with dtype=, which converts the whole model."
    )


def test_layers_in_float64() -> None:
    message = refusal(YatDense(6, 3).double(), {"x": torch.randn(2, 6).double()})
    assert message == (
        "YatDense takes float32, float16 or bfloat16; got double. "
        "Export with dtype=, which converts the whole model."
    )


def test_a_model_that_cannot_be_traced() -> None:
    message = refusal(nn.Sequential(YatDense(6, 3), Branching()), X)
    assert message.startswith("torch.export must be able to trace the model; got ")
    assert message.endswith(" Run torch.export.export on the model for the complete report.")
    assert "\n" not in message


def test_a_model_that_cannot_be_traced_with_dynamic_axes_either() -> None:
    message = refusal(nn.Sequential(YatDense(6, 3), Branching()), X, {"x": {0: "n"}})
    assert message.startswith("torch.export must be able to trace the model; got ")


def test_an_op_without_a_translation() -> None:
    model = nn.Sequential(YatDense(6, 3), nn.Unflatten(0, (1, -1)), Untranslatable())
    message = refusal(nn.Sequential(model), {"x": torch.randn(3, 6)})
    assert message.startswith("Every op of the model must have an ONNX translation; got ")
    assert message.endswith(" Write that part of the model with ops that torch.onnx.export knows.")
    assert "\n" not in message
