import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from nmn_export import NmnExportError, check, export
from nmn_export.graph.example import parse_example
from nmn_export.layers import YatDense


class Pair(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        y = x if mask is None else x * mask
        return y if bias is None else y + bias


X, BIAS = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
ONE = (X,)
BOTH = {"x": X, "bias": BIAS}


@pytest.mark.parametrize(
    ("inputs", "shapes", "axes"),
    [
        (ONE, {"x": {0: "batch"}}, {"x": {0: "batch"}}),
        (ONE, {"x": {0: Dim("batch"), 2: "width"}}, {"x": {0: "batch", 2: "width"}}),
        (ONE, {"x": {0: Dim.DYNAMIC, 1: Dim.AUTO}}, {"x": {0: "x_0", 1: "x_1"}}),
        (ONE, {"x": {0: Dim.DYNAMIC(min=2), 1: Dim.STATIC, 2: None}}, {"x": {0: "x_0"}}),
        (ONE, {"x": {0: "batch", 1: 3}}, {"x": {0: "batch"}}),
        (ONE, {"x": (Dim("batch"), None, "width")}, {"x": {0: "batch", 2: "width"}}),
        (ONE, {"x": [Dim("batch", min=1, max=8), 3, 4]}, {"x": {0: "batch"}}),
        (ONE, {"x": [0, 2]}, {"x": {0: "x_0", 2: "x_2"}}),
        (ONE, {"x": (2, 3, 4)}, {}),
        (ONE, {"x": None}, {}),
        (ONE, {"x": {}}, {}),
        (ONE, None, {}),
        (ONE, ({0: "batch"},), {"x": {0: "batch"}}),
        (ONE, [(Dim("batch"), None, None)], {"x": {0: "batch"}}),
        (ONE, [[0]], {"x": {0: "x_0"}}),
        (X, ({0: Dim("batch")},), {"x": {0: "batch"}}),
        ((X, None, BIAS), ({0: "n"}, None, {0: "n"}), {"x": {0: "n"}, "bias": {0: "n"}}),
        ((X, X, BIAS), {"bias": [1]}, {"bias": {1: "bias_1"}}),
        (BOTH, ({0: "n"}, {1: "m"}), {"x": {0: "n"}, "bias": {1: "m"}}),
        # A sequence follows the order in which the inputs are given, not that of the arguments.
        ({"bias": BIAS, "x": X}, ({1: "m"}, {0: "n"}), {"x": {0: "n"}, "bias": {1: "m"}}),
        (BOTH, {"bias": {0: Dim("n")}, "x": None}, {"bias": {0: "n"}}),
    ],
)
def test_dynamic_axes_are_taken_in_all_forms_of_pytorch(inputs, shapes, axes):
    tensors, found = parse_example(Pair(), inputs, shapes, None)
    assert found == axes
    assert list(tensors) == [name for name in ("x", "mask", "bias") if name in tensors]


@pytest.mark.parametrize(
    ("shapes", "got"),
    [
        ("batch", "got str."),
        (7, "got int."),
        (({0: "n"}, {0: "n"}), "got 2 entries for 1 inputs."),
        ({"x": 0}, "got 0 for 'x'."),
        ({"x": "batch"}, "got 'batch' for 'x'."),
        ({"x": {"batch": 0}}, "got axes 'batch' of 'x'."),
        ({"x": (Dim("n"), None)}, "got 2 entries for the 3 axes of 'x'."),
        ({"x": {0: 1.5}}, "got 1.5 for axis 0 of 'x'."),
    ],
)
def test_other_forms_of_dynamic_axes_are_refused_in_one_line(shapes, got):
    with pytest.raises(NmnExportError) as refused:
        parse_example(Pair(), ONE, shapes, None)
    assert got in str(refused.value)
    assert str(refused.value).startswith("Dynamic axes are given per input, as {0: 'batch'}")


@pytest.mark.parametrize("form", [{0: Dim("n")}, (Dim("n"), None), [0], ("n", None)], ids=str)
def test_a_file_runs_at_other_sizes_whatever_the_form_of_its_dynamic_axes(tmp_path, form):
    path, model = tmp_path / "m.onnx", YatDense(8, 4)
    export(model, torch.randn(2, 8), path, dynamic_shapes=(form,))
    larger = {"x": np.random.default_rng(0).standard_normal((5, 8), np.float32)}
    assert all(c.passed for c in check(path, model, larger))


def meta_model() -> nn.Module:
    return nn.Sequential(YatDense(8, 4, device="meta"))


REFUSED = {
    "a function": (lambda: torch.relu, X, "must be a torch.nn.Module; got relu"),
    "a lambda": (lambda: lambda x: x, X, "must be a torch.nn.Module; got <lambda> (function)"),
    "a class": (lambda: YatDense, X, "must be a torch.nn.Module; got YatDense (type)"),
    "None for a model": (lambda: None, X, "must be a torch.nn.Module; got (NoneType)"),
    "TorchScript": (lambda: torch.jit.trace(nn.ReLU(), X), X, "got a TorchScript module. Use the"),
    "a model without values": (
        meta_model,
        X,
        "must have values; got tensors on the meta device: 0",
    ),
    "an input without values": (Pair, X.to("meta"), "must have values; got a tensor on the meta"),
    "None for inputs": (
        Pair,
        None,
        "are a tensor, a tuple of tensors, or tensors by name; got None",
    ),
    "None for every input": (Pair, (None,), "model's arguments: x, mask, bias; got none. Add x."),
    "an array": (Pair, (X.numpy(),), "got ndarray for 'x'. Use torch.from_numpy for an array."),
    "an array by itself": (Pair, X.numpy(), "got ndarray. Use torch.from_numpy"),
    "a string": (Pair, "x", "got str."),
    "an empty name": (lambda: nn.Sequential(Pair()), {"": X}, "that are not empty; got ''. Use"),
    "a number for a name": (Pair, {0: X}, "Input names must be strings that are not empty; got 0."),
    "too many inputs": (Pair, (X,) * 4, "The model takes 3 inputs: x, mask, bias; got 4."),
}


@pytest.mark.parametrize(("make", "inputs", "message"), REFUSED.values(), ids=REFUSED)
def test_invalid_models_and_inputs_are_refused_in_one_line(tmp_path, make, inputs, message):
    with pytest.raises(NmnExportError) as refused:
        export(make(), inputs, tmp_path / "m.onnx")
    assert message in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reference", [torch.relu, None, meta_model()], ids=["def", "None", "meta"])
def test_check_refuses_an_invalid_reference(tmp_path, reference):
    path = tmp_path / "m.onnx"
    export(YatDense(8, 4), torch.randn(2, 8), path)
    with pytest.raises(NmnExportError, match=r"must be a torch\.nn\.Module|must have values"):
        check(path, reference)


@pytest.mark.parametrize("metadata", [{"run": 42}, {1: "run"}, {"run": None}, ["run"], "run"])
def test_metadata_that_is_not_strings_is_refused_in_one_line(tmp_path, metadata):
    with pytest.raises(NmnExportError, match="Metadata must be strings by name; got"):
        export(YatDense(8, 4), torch.randn(2, 8), tmp_path / "m.onnx", metadata=metadata)
    assert list(tmp_path.iterdir()) == []
