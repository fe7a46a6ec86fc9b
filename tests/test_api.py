import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import nmn_export.api
import nmn_export.graph.file
from nmn_export import CheckError, NmnExportError, check, export, parameter_hash, run
from nmn_export.layers import YatConv1d, YatConv2d, YatDense
from nmn_export.report.inspect import provenance


def test_file_says_where_it_comes_from(small_net, small_file):
    origin = provenance(onnx.load(small_file))
    assert origin["parameters_sha256"] == parameter_hash(small_net)
    assert origin["source"].endswith("SmallNet")
    assert origin["version.torch"] == torch.__version__
    assert set(json.loads(origin["parity"])) == {"pytorch eager", "onnxruntime"}
    assert origin["dtype"] == "unchanged"


def test_users_metadata_goes_into_the_file(small_net, tmp_path):
    path = tmp_path / "m.onnx"
    export(small_net, torch.randn(2, 3, 10, 10), path, metadata={"run": "42"})
    assert {p.key: p.value for p in onnx.load(path).metadata_props}["run"] == "42"


def test_parameter_hash_sees_every_value(small_net):
    before = parameter_hash(small_net)
    with torch.no_grad():
        small_net.head.weight[0, 0] += 1
        changed = parameter_hash(small_net)
        small_net.head.weight[0, 0] -= 1
    assert changed != before


@pytest.mark.parametrize(
    ("size", "name"),
    [(torch.export.Dim("n"), "n"), (torch.export.Dim.DYNAMIC, "x_0"), ("batch", "batch")],
    ids=["Dim", "DYNAMIC", "name"],
)
def test_a_dynamic_axis_may_be_given_as_pytorch_has_it(small_net, tmp_path, size, name):
    path = tmp_path / "m.onnx"
    export(small_net, torch.randn(2, 3, 8, 8), path, dynamic_shapes={"x": {0: size}})
    shape = onnx.load(path).graph.input[0].type.tensor_type.shape
    assert shape.dim[0].dim_param == name


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_empty_batch_runs_through_every_kind_of_layer(tmp_path, inline, dtype):
    path, x = tmp_path / "m.onnx", torch.randn(2, 4, 7, 6)
    net = nn.Sequential(
        YatConv2d(4, 6, 3, padding=1, padding_mode="reflect"),
        YatConv2d(6, 6, 3, groups=3, dilation=2, padding=2),
        nn.Flatten(2),
        YatConv1d(6, 5, 2, stride=2),
        YatDense(21, 3, spherical=True),
    )
    axes = {"input": {0: "batch"}}
    export(net, {"input": x}, path, dynamic_shapes=axes, inline=inline, dtype=dtype)
    assert net(x[:0]).shape == (0, 5, 3)
    result = run(path, {"input": x[:0].numpy().astype(dtype)})["output"]
    assert (result.shape, result.dtype) == ((0, 5, 3), dtype)


@pytest.mark.parametrize("batch", [0, 1, 2, 7])
def test_run_agrees_with_pytorch(small_net, small_file, batch):
    x = torch.randn(batch, 3, 10, 10)
    with torch.no_grad():
        expected = small_net(x).numpy()
    np.testing.assert_allclose(run(small_file, {"x": x.numpy()})["output"], expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", torch.float32])
def test_export_converts_the_whole_model(small_net, tmp_path, dtype):
    path = tmp_path / "m.onnx"
    export(small_net, torch.randn(2, 3, 10, 10), path, dtype=dtype)
    name = str(dtype).removeprefix("torch.")
    wanted = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(name if name != "bfloat16" else "f4"))
    wanted = onnx.TensorProto.BFLOAT16 if name == "bfloat16" else wanted
    model = onnx.load(path)
    weights = [t for t in model.graph.initializer if t.name.endswith((".weight", ".bias"))]
    assert {t.data_type for t in weights} == {wanted}
    assert next(small_net.parameters()).dtype == torch.float32
    assert provenance(model)["dtype"] == name


def test_half_precision_file_passes_its_check(small_net, tmp_path):
    path = tmp_path / "m.onnx"
    export(small_net, torch.randn(2, 3, 10, 10), path, dtype="float16")
    assert all(c.passed for c in check(path, small_net))


def test_export_that_cannot_be_compared_says_so(tmp_path):
    # ONNX Runtime has no bfloat16 convolution for the CPU.
    path = tmp_path / "m.onnx"
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), YatDense(4, 2))
    result = export(net, torch.randn(2, 1, 2, 2), path, dtype="bfloat16")
    assert not result.parity
    assert "ONNX Runtime must be able to run the model" in result.parity_note
    assert "not checked" in provenance(onnx.load(path))["parity"]


def test_export_writes_nothing_when_the_result_is_wrong(small_net, tmp_path, monkeypatch):
    class Wrong(nmn_export.api.OnnxRuntimeRunner):
        def run(self, inputs):
            return {name: 2 * y for name, y in super().run(inputs).items()}

    monkeypatch.setattr(nmn_export.api, "OnnxRuntimeRunner", Wrong)
    with pytest.raises(CheckError, match=r"must agree with float64.*nothing was written") as caught:
        export(small_net, torch.randn(2, 3, 10, 10), tmp_path / "m.onnx")
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_large_weights_go_to_a_file_of_their_own(small_net, tmp_path, monkeypatch):
    monkeypatch.setattr(nmn_export.graph.file, "EXTERNAL_DATA_THRESHOLD", 100)
    path = tmp_path / "m.onnx"
    x = torch.randn(2, 3, 10, 10)
    export(small_net, x, path)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    with torch.no_grad():
        expected = small_net(x).numpy()
    np.testing.assert_allclose(run(path, {"x": x.numpy()})["output"], expected, rtol=1e-4)
    assert all(c.passed for c in check(path, small_net))


def test_inputs_are_named_after_the_arguments(small_net, tmp_path):
    for given in (torch.randn(2, 3, 8, 8), {"x": torch.randn(2, 3, 8, 8)}):
        export(small_net, given, tmp_path / "m.onnx")
        assert [i.name for i in onnx.load(tmp_path / "m.onnx").graph.input] == ["x"]


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.yat = YatDense(4, 3)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.yat(a), self.yat(a + b)


def test_models_may_have_several_inputs_and_outputs(tmp_path):
    path = tmp_path / "m.onnx"
    net = TwoInputs().eval()
    a, b = torch.randn(2, 4), torch.randn(2, 4)
    shapes = {"a": {0: "batch"}, "b": {0: "batch"}}
    export(net, (a, b), path, dynamic_shapes=shapes)
    outputs = run(path, {"a": a.numpy(), "b": b.numpy()})
    assert set(outputs) == {"output_0", "output_1"}
    assert all(c.passed for c in check(path, net))
    names = [n.name for n in onnx.load(path).graph.node if n.domain]
    assert names == ["yat", "yat_2"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "inputs are x; got none"),
        ({"y": np.zeros((1, 3, 10, 10), np.float32)}, "inputs are x; got y"),
        ({"x": np.zeros((1, 3, 10), np.float32)}, "has shape batchx3x10x10; got 1x3x10"),
        ({"x": np.zeros((1, 4, 10, 10), np.float32)}, "got 1x4x10x10"),
        ({"x": np.zeros((1, 3, 10, 10))}, r"has dtype float32; got float64.*astype\('float32'\)"),
    ],
)
def test_run_reports_invalid_inputs(small_file, inputs, message):
    with pytest.raises(NmnExportError, match=message):
        run(small_file, inputs)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.randn(2, 4, 10, 10), "must run on the example inputs; got x .2, 4, 10, 10."),
        (torch.randn(2, 3), "must run on the example inputs"),
    ],
)
def test_export_reports_invalid_example_inputs(small_net, tmp_path, x, message):
    with pytest.raises(NmnExportError, match=message):
        export(small_net, x, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_export_refuses_weights_that_are_not_finite(tmp_path):
    net = nn.Sequential(YatDense(4, 3))
    with torch.no_grad():
        net[0].weight[1, 1] = torch.nan
    with pytest.raises(NmnExportError, match=r"must be finite; got NaN or infinity in 0\.weight"):
        export(net, torch.randn(2, 4), tmp_path / "m.onnx")


def test_export_refuses_other_dtypes(small_net, tmp_path):
    with pytest.raises(NmnExportError, match=r"dtype must be one of .*; got int8"):
        export(small_net, torch.randn(2, 3, 8, 8), tmp_path / "m.onnx", dtype="int8")


def test_bfloat16_convolutions_need_a_newer_opset(small_net, tmp_path):
    with pytest.raises(NmnExportError, match=r"must be valid ONNX; got .*bfloat16.*need 22"):
        export(small_net, torch.randn(2, 3, 8, 8), tmp_path / "m", dtype="bfloat16", opset=18)
    assert list(tmp_path.iterdir()) == []


def test_export_needs_a_folder_to_write_to(small_net, tmp_path):
    with pytest.raises(NmnExportError, match="output folder must exist"):
        export(small_net, torch.randn(2, 3, 8, 8), tmp_path / "no" / "m.onnx")


def test_a_failed_export_keeps_the_file_that_was_there(small_net, tmp_path):
    path: Path = tmp_path / "m.onnx"
    path.write_bytes(b"precious")
    with pytest.raises(NmnExportError):
        export(small_net, torch.randn(2, 5, 8, 8), path)
    assert path.read_bytes() == b"precious"
