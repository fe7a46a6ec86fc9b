import numpy as np
import onnx
import pytest
import torch

from nmn_export import NmnExportError, check, export
from nmn_export.graph.file import EXAMPLE_SHAPES, load
from nmn_export.graph.fold import fold
from nmn_export.layers import YatConv2d, YatDense
from nmn_export.ops import OPS
from nmn_export.runtime.arrays import to_numpy, to_torch
from nmn_export.runtime.inputs import check_inputs, draw_inputs
from nmn_export.runtime.onnx_reference import OnnxReferenceRunner
from nmn_export.runtime.onnx_runtime import OnnxRuntimeRunner
from nmn_export.runtime.pytorch import EagerRunner, TruthRunner


def test_every_runner_gives_outputs_by_their_names_in_the_graph(small_net, small_file):
    model = load(small_file)
    inputs = draw_inputs(model, 0)
    folded = fold(small_net)
    runners = [
        EagerRunner(folded),
        TruthRunner(folded),
        OnnxRuntimeRunner(small_file),
        OnnxReferenceRunner(model),
    ]
    outputs = [runner.run(inputs)["output"] for runner in runners]
    assert len({runner.name for runner in runners}) == len(runners)
    for output in outputs[1:]:
        np.testing.assert_allclose(output, outputs[0], rtol=1e-3, atol=1e-6)


def test_truth_is_float64_and_uses_exact_distances():
    """Close to a prototype the float32 expansion has no correct digits; the truth has."""
    layer = torch.nn.Sequential(_layer())
    weight = layer[0].weight.double()
    x = (weight[:1] * (1 + 1e-6)).float().detach()
    truth = TruthRunner(fold(layer)).run({"x": x.numpy()})["output"]
    distance = (x.double() - weight).square().sum(1)
    expected = (x.double() @ weight.T).square() / (distance + layer[0].epsilon)
    assert truth.dtype == np.float64
    np.testing.assert_allclose(truth, expected.detach().numpy(), rtol=1e-12)


def test_truth_leaves_the_model_in_its_dtype(small_net):
    folded = fold(small_net)
    TruthRunner(folded)
    assert {p.dtype for p in folded.parameters()} == {torch.float32}


def _layer():
    torch.manual_seed(0)
    return YatDense(64, 3, bias=False, alpha=False, epsilon=1e-12)


def test_every_op_has_an_exact_form():
    assert all(callable(spec.exact) for spec in OPS.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_tensors_survive_the_way_through_numpy(dtype):
    tensor = torch.arange(-3, 4).to(dtype)
    assert torch.equal(to_torch(to_numpy(tensor)), tensor)
    assert to_torch(to_numpy(tensor)).dtype == dtype


def test_a_missing_provider_is_an_error_and_never_falls_back_to_the_cpu(small_file):
    with pytest.raises(NmnExportError, match=r"CUDAExecutionProvider.*nmn-export\[gpu\]"):
        OnnxRuntimeRunner(small_file, "cuda")


def test_a_provider_that_falls_back_is_an_error(small_file, monkeypatch):
    import onnxruntime as ort  # noqa: PLC0415

    # Simulates onnxruntime-gpu on a machine whose CUDA libraries cannot be loaded.
    monkeypatch.setattr(
        ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    real = ort.InferenceSession
    monkeypatch.setattr(
        ort,
        "InferenceSession",
        lambda *args, providers: real(*args, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(NmnExportError, match=r"'cuda' was asked for.*got CPUExecutionProvider"):
        OnnxRuntimeRunner(small_file, "cuda")


def test_without_onnxruntime_the_extra_is_named(small_file, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(NmnExportError, match=r"needs ONNX Runtime.*nmn-export\[cpu\]"):
        OnnxRuntimeRunner(small_file)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_launch_reads_the_current_values_of_its_inputs(tmp_path, dtype):
    net = torch.nn.Sequential(YatDense(4, 3))
    export(net, torch.randn(2, 4), tmp_path / "m.onnx", dtype=dtype)
    x = torch.zeros(2, 4, dtype=getattr(torch, dtype))
    runner = OnnxRuntimeRunner(tmp_path / "m.onnx")
    binding = runner.session.io_binding()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner.session, "io_binding", lambda: binding)
        launch = runner.launcher({"input": x})

    def launched() -> np.ndarray:
        launch()
        value = binding.get_outputs()[0]._ortvalue
        return to_numpy(torch.utils.dlpack.from_dlpack(value.to_dlpack()))

    first = launched().copy()
    x.fill_(1)
    expected = runner.run({"input": to_numpy(x)})["output"]
    assert np.array_equal(launched(), expected)
    assert not np.array_equal(first, expected)


def test_errors_of_onnxruntime_become_one_line():
    node = onnx.helper.make_node("NoSuchOp", ["x"], ["y"])
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([node], "g", [value("x", 1, [1])], [value("y", 1, [1])])
    with pytest.raises(NmnExportError, match="ONNX Runtime must be able to run") as caught:
        OnnxRuntimeRunner(onnx.helper.make_model(graph))
    assert "\n" not in str(caught.value)


def test_drawn_inputs_have_the_sizes_of_the_export(tmp_path):
    """A default size of 2×2 would be too small for this convolution."""
    net = torch.nn.Sequential(YatConv2d(3, 2, 5, stride=2))
    path = tmp_path / "m.onnx"
    shapes = {"input": {0: "batch", 2: "height", 3: "width"}}
    export(net, torch.randn(2, 3, 17, 19), path, dynamic_shapes=shapes)
    assert draw_inputs(load(path), 0)["input"].shape == (2, 3, 17, 19)
    assert all(c.passed for c in check(path, net))


def test_inputs_that_the_reference_refuses_are_reported(tmp_path):
    net = torch.nn.Sequential(YatConv2d(3, 2, 5))
    path = tmp_path / "m.onnx"
    export(net, torch.randn(2, 3, 9, 9), path, dynamic_shapes={"input": {2: "height"}})
    with pytest.raises(NmnExportError, match="must run on the inputs; got input"):
        check(path, net, {"input": np.zeros((2, 3, 2, 9), np.float32)})


def test_drawn_inputs_fit_and_are_the_same_every_time(small_file):
    model = load(small_file)
    first, second = draw_inputs(model, 3), draw_inputs(model, 3)
    check_inputs(model, first)
    assert np.array_equal(first["x"], second["x"])
    assert first["x"].shape == (2, 3, 10, 10)


@pytest.mark.parametrize("stored", ['{"x": "oops"', "[]", "{}x", '{"x": []}', '{"x": ["a", 1]}'])
def test_example_shapes_that_are_not_shapes_are_reported(small_file, stored):
    model = load(small_file)
    next(p for p in model.metadata_props if p.key == EXAMPLE_SHAPES).value = stored
    with pytest.raises(NmnExportError, match=r"'nmn_export\.example_shapes' must be a shape for"):
        draw_inputs(model, 0)


@pytest.mark.parametrize("raised", [IndexError("index 3\nand more"), KeyError(), AssertionError()])
def test_whatever_the_model_raises_is_one_line(raised):
    class Broken(torch.nn.Module):
        def forward(self, x):
            raise raised

    with pytest.raises(NmnExportError, match=r"The reference must run on the inputs; got x \(2,"):
        EagerRunner(Broken()).run({"x": np.zeros((2, 3), np.float32)})
