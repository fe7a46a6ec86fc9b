"""A good file passes on inputs for which float32 has no correct digits; a wrong one fails."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from nmn_export import CheckError, check, export
from nmn_export.layers import YatConv2d, YatDense
from nmn_export.report.inspect import provenance


def dense(**options) -> YatDense:
    torch.manual_seed(3)
    return YatDense(64, 16, **options)


def weights_of(layer: YatDense) -> torch.Tensor:
    return layer.weight.detach()[:4].clone()


def conv_case() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(3)
    layer = YatConv2d(8, 6, 3)
    return nn.Sequential(layer), layer.weight.detach()[:2].clone()


CASES = {
    "dense": lambda: (nn.Sequential(layer := dense()), weights_of(layer)),
    "dense, bias": lambda: (nn.Sequential(layer := dense(constant_bias=0.5)), weights_of(layer)),
    "spherical": lambda: (nn.Sequential(layer := dense(spherical=True)), weights_of(layer) * 3),
    "small epsilon": lambda: (nn.Sequential(layer := dense(epsilon=1e-7)), weights_of(layer)),
    "followed by a layer": lambda: (
        nn.Sequential(layer := dense(), nn.LayerNorm(16), YatDense(16, 5)),
        weights_of(layer),
    ),
    "conv": conv_case,
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_example_input_may_equal_a_weight(tmp_path, case):
    model, x = case()
    path = tmp_path / "m.onnx"
    result = export(model, x, path)
    assert [c.passed for c in result.parity] == [True, True]
    assert all(c.passed for c in check(path, model, {"input": x.numpy()}))


@pytest.mark.parametrize("factor", [1.001, 1.1])
def test_a_wrong_weight_fails_on_inputs_that_are_far_from_all_weights(tmp_path, factor):
    """Conditioning permits larger errors only for inputs close to weights."""
    model, path = nn.Sequential(dense()), tmp_path / "m.onnx"
    export(model, torch.randn(4, 64), path)
    proto = onnx.load(path)
    weight = next(t for t in proto.graph.initializer if t.name == "0.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * factor, weight.name))
    onnx.save(proto, path)
    whole = [c for c in check(path, model) if c.subject == "model" and c.limit is not None]
    assert whole
    assert not any(c.passed for c in whole)


def test_example_inputs_that_overflow_in_eager_pytorch_are_not_compared(tmp_path):
    model, path = nn.Sequential(dense()), tmp_path / "m.onnx"
    result = export(model, torch.full((2, 64), 1e25), path)
    assert result.parity == []
    assert result.parity_note.startswith("Eager PyTorch must compute the example inputs without ov")
    assert "not checked" in json.loads(provenance(onnx.load(path))["parity"])
    assert all(c.passed for c in check(path, model))


def test_a_wrong_file_is_refused_on_an_input_that_equals_a_weight(tmp_path, monkeypatch):
    import nmn_export.api  # noqa: PLC0415 - the module, of which a name is replaced

    class Wrong(nmn_export.api.OnnxRuntimeRunner):
        def run(self, inputs):
            return {name: 3 * y for name, y in super().run(inputs).items()}

    monkeypatch.setattr(nmn_export.api, "OnnxRuntimeRunner", Wrong)
    layer = dense()
    with pytest.raises(CheckError, match="nothing was written"):
        export(layer, weights_of(layer), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_displacement_is_a_share_of_both_norms(dtype):
    from nmn_export.ops import exact_yat_conv, exact_yat_dense  # noqa: PLC0415

    w = torch.tensor([[3.0, 4.0]], dtype=dtype)
    y = exact_yat_dense(w, w, None, 1e-3, 1.0, False, displacement=1e-2)
    np.testing.assert_allclose(y, 25.0**2 / (1e-2 * 50 + 1e-3))
    y = exact_yat_dense(w, w, None, 1e-3, 1.0, False, displacement=-1e-2)
    np.testing.assert_allclose(y, 25.0**2 / 1e-3)
    y = exact_yat_dense(w, w, None, 1e-3, 1.0, True, displacement=1e-2)
    np.testing.assert_allclose(y, 1 / (2e-2 + 1e-3), rtol=1e-5)
    image = w.reshape(1, 2, 1, 1)
    y = exact_yat_conv(
        image, image, None, 1e-3, 1.0, (1, 1), (0,) * 4, (1, 1), 1, displacement=1e-2
    )
    np.testing.assert_allclose(y.flatten(), 25.0**2 / (1e-2 * 50 + 1e-3))
