import copy
import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from rich.console import Console

from nmn_export import NmnExportError, check, export
from nmn_export.graph.file import load
from nmn_export.graph.fold import fold
from nmn_export.layers import YatConv1d, YatConv2d, YatConv3d, YatConvTranspose2d, YatDense
from nmn_export.ops import OPS
from nmn_export.report import single_layer
from nmn_export.report.check import check_engine
from nmn_export.report.render import comparison_json, comparison_table
from nmn_export.report.single_layer import LayerOp, near_prototypes
from nmn_export.runtime.inputs import inputs_of
from nmn_export.runtime.onnx_runtime import OnnxRuntimeRunner


def changed(path, tmp_path, edit):
    """Return a changed copy of a file."""
    model = onnx.load(path)
    edit(model)
    copy_path = tmp_path / "changed.onnx"
    onnx.save(model, copy_path)
    return copy_path


def failed(comparisons):
    return {(c.subject, c.backend) for c in comparisons if not c.passed}


def test_a_faithful_file_passes_everywhere(small_net, small_file):
    comparisons = check(small_file, small_net)
    assert not failed(comparisons)
    assert {c.subject for c in comparisons} == {"model", "yat_conv", "head"}
    assert {c.backend for c in comparisons} == {"pytorch eager", "onnxruntime", "onnx reference"}


def test_a_wrong_weight_is_found_in_its_layer(small_net, small_file, tmp_path):
    def edit(model):
        tensor = next(t for t in model.graph.initializer if t.name == "yat_conv.weight")
        values = numpy_helper.to_array(tensor).copy()
        values[0, 0] *= 1.5
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    wrong = failed(check(changed(small_file, tmp_path, edit), small_net))
    assert {subject for subject, _ in wrong} == {"model", "yat_conv"}


def test_a_wrong_attribute_is_found_in_its_layer(small_net, small_file, tmp_path):
    def edit(model):
        node = next(n for n in model.graph.node if n.name == "head")
        next(a for a in node.attribute if a.name == "epsilon").f = 0.5

    wrong = failed(check(changed(small_file, tmp_path, edit), small_net))
    assert ("head", "onnxruntime") in wrong
    assert ("yat_conv", "onnxruntime") not in wrong


def test_norms_in_half_precision_are_found(tmp_path):
    """A careless conversion computes norms in half precision, which fails close to the weights."""
    path = tmp_path / "m.onnx"
    net = torch.nn.Sequential(YatDense(512, 4, alpha=False, epsilon=1e-9))
    export(net, torch.randn(2, 512), path)

    def edit(model):
        body = model.functions[0].node
        last = next(i for i, n in enumerate(body) if n.op_type == "Sub")
        narrow = onnx.helper.make_node("Cast", [body[last].input[0]], ["narrow"], to=10)
        widen = onnx.helper.make_node("Cast", ["narrow"], ["wide"], to=1)
        body[last].input[0] = "wide"
        body.insert(last, widen)
        body.insert(last, narrow)

    wrong = failed(check(changed(path, tmp_path, edit), net))
    assert ("0", "onnxruntime") in wrong


def test_given_inputs_are_used(small_net, small_file):
    x = np.full((3, 3, 10, 10), 0.5, np.float32)
    assert check(small_file, small_net, {"x": x})[0].inputs == "given"


def test_an_inlined_file_is_checked_as_a_whole(small_net, tmp_path):
    path = tmp_path / "m.onnx"
    export(small_net, torch.randn(2, 3, 10, 10), path, inline=True)
    comparisons = check(path, small_net)
    assert {c.subject for c in comparisons} == {"model"}
    assert not failed(comparisons)


@pytest.mark.parametrize(
    ("make", "shape", "subject"),
    [
        (lambda: YatDense(8, 4), (2, 8), "YatDense"),
        (lambda: YatConv2d(2, 4, 3, padding=1, padding_mode="reflect"), (2, 2, 6, 6), "YatConv"),
        (lambda: YatConvTranspose2d(2, 4, 4, 2, groups=2), (2, 2, 3, 3), "YatConvTranspose"),
        (lambda: pytest.importorskip("nmn.torch.nmn").YatNMN(8, 4), (2, 8), "YatDense"),
    ],
    ids=["dense", "conv", "conv_transpose", "nmn"],
)
def test_a_model_may_be_one_layer(tmp_path, make, shape, subject):
    path, layer = tmp_path / "m.onnx", make()
    export(layer, torch.randn(shape), path)
    comparisons = check(path, layer)
    assert {c.subject for c in comparisons} == {"model", subject}
    assert not failed(comparisons)

    def edit(model):
        tensor = next(t for t in model.graph.initializer if t.name.endswith("weight"))
        values = numpy_helper.to_array(tensor) * 1.5
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    assert (subject, "onnxruntime") in failed(check(changed(path, tmp_path, edit), layer))


def test_another_model_is_refused(small_file):
    with pytest.raises(NmnExportError, match=r"must be the model .* got no layer yat_conv, head"):
        check(small_file, torch.nn.Sequential(YatDense(4, 2)))


def test_other_parameters_fail(small_net, small_file):
    other = copy.deepcopy(small_net)
    with torch.no_grad():
        other.head.weight.mul_(2)
    assert ("head", "onnxruntime") in failed(check(small_file, other))


LAYERS = [
    YatDense(7, 5),
    YatConv1d(4, 6, 3, stride=2, padding=1),
    YatConv2d(4, 6, 3, stride=2, padding=1, groups=2),
    YatConv2d(2, 40, (3, 2), padding=2, dilation=(1, 2)),
    YatConv2d(3, 4, 1),
    YatConv3d(2, 3, 2, stride=3, dilation=2, padding=1),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_probes_come_close_to_every_prototype(layer):
    """For each filter there is a patch with a ⵟ-product so large that it must be close."""
    folded = fold(torch.nn.Sequential(layer))[0]
    folded.epsilon = 1e-9
    x = near_prototypes(folded, 0)
    spec = {"YatDense": OPS["YatDense"]}.get(type(layer).__name__, OPS["YatConv"])
    with torch.no_grad():
        folded.bias.zero_()
        arguments = [x, folded.weight, None, folded.epsilon, 1.0]
        if spec.name == "YatDense":
            y = spec.exact(*arguments, False)
        else:
            y = spec.exact(*arguments, folded.strides, folded.pads, folded.dilations, folded.group)
        assert LayerOp(folded)(x).shape == y.shape
    largest = y.movedim(1, 0).flatten(1).max(1).values if y.ndim > 2 else y.max(0).values
    # At a distance of 1 % the ratio is about ‖w‖² / 1e-4.
    w_sq = folded.weight.double().flatten(1).square().sum(1)
    assert (largest > 1e3 * w_sq).all()


def test_probes_of_a_vocabulary_are_close_to_evenly_chosen_prototypes(monkeypatch):
    monkeypatch.setattr(single_layer, "LARGEST_OUTPUT", 3 * 100 * 10)
    folded = fold(torch.nn.Sequential(YatDense(64, 100)))[0]
    x = near_prototypes(folded, 0)
    assert len(x) == 3 * 10
    closest = torch.cdist(x, folded.weight).argmin(1)
    assert closest.tolist() == 3 * list(range(0, 100, 10))


@pytest.mark.parametrize(
    ("dtype", "param_dtype"), [(torch.float16, torch.float32), (torch.float32, torch.float16)]
)
def test_a_layer_that_stores_its_weights_in_another_dtype(dtype, param_dtype, tmp_path):
    path = tmp_path / "m.onnx"
    net = torch.nn.Sequential(YatDense(32, 4, dtype=dtype, param_dtype=param_dtype))
    export(net, torch.randn(2, 32), path)
    comparisons = check(path, net)
    assert {c.subject for c in comparisons} == {"model", "0"}
    assert not failed(comparisons)


def test_reports_are_printed_as_table_and_as_json(small_net, small_file, tmp_path):
    comparisons = check(small_file, small_net)
    console = Console(width=150, record=True, file=(tmp_path / "out").open("w"))
    console.print(comparison_table(comparisons))
    text = console.export_text()
    assert "yat_conv" in text
    assert "onnx reference" in text
    reported = json.loads(comparison_json(comparisons))
    assert reported["passed"] is True
    assert len(reported["comparisons"]) == len(comparisons)


class AsEngine:
    """ONNX Runtime with the interface of an engine."""

    name = "tensorrt"

    def __init__(self, path, factor=1.0):
        self.inputs = inputs_of(load(path))
        self.runner, self.factor = OnnxRuntimeRunner(path), factor

    def run(self, inputs):
        return {name: self.factor * y for name, y in self.runner.run(inputs).items()}


def test_an_engine_is_checked_as_a_whole(small_net, small_file):
    comparisons = check_engine(AsEngine(small_file), fold(small_net), None)
    assert [(c.subject, c.inputs, c.backend) for c in comparisons] == [
        ("model", "random", "pytorch eager"),
        ("model", "random", "tensorrt"),
    ]
    assert not failed(comparisons)


def test_a_wrong_engine_fails(small_net, small_file):
    wrong = failed(check_engine(AsEngine(small_file, 1.001), fold(small_net), None))
    assert wrong == {("model", "tensorrt")}


def test_inputs_of_an_engine_come_in_any_order(tmp_path):
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = YatDense(4, 3)

        def forward(self, a, b):
            return self.head(a) - 2 * b

    net = Two()
    export(net, {"a": torch.randn(2, 4), "b": torch.randn(2, 3)}, tmp_path / "two.onnx")
    rng = np.random.default_rng(0)
    given = {n: rng.standard_normal((2, k), dtype=np.float32) for n, k in (("b", 3), ("a", 4))}
    comparisons = check_engine(AsEngine(tmp_path / "two.onnx"), fold(net), given)
    assert comparisons[1].inputs == "given"
    assert not failed(comparisons)


def test_inputs_that_do_not_fit_an_engine_are_reported(small_net, small_file):
    with pytest.raises(NmnExportError, match="has dtype float32; got float64"):
        check_engine(AsEngine(small_file), fold(small_net), {"x": np.zeros((2, 3, 10, 10))})
