"""Linear attention in TensorRT-RTX: standard ops, with dynamic batch and length, and no plugin."""

import pytest
import torch

from nmn_export import build, export
from nmn_export.layers import RotaryStep, RotaryYatAttention
from tests.engine.test_parser import PARSE, parse

__all__ = ["parse"]

OPTIONS = {"plugin": "off", "compute_capabilities": [120]}

KINDS = {
    "slay": {"causal": True},
    "maclaurin": {"performer_num_features": 24, "performer_nmax": 6},
    "radial": {"performer_sketch_m": 4, "performer_num_radial": 2, "performer_radial_dim": 4},
}

CUMULATIVE = """
for i in range(network.num_layers):
    layer = network.get_layer(i)
    if layer.type == trt.LayerType.CUMULATIVE:
        layer.__class__ = trt.ICumulativeLayer
        print("sum", "exclusive" if layer.exclusive else "inclusive", layer.reverse)
"""


def layer_of(kind: str) -> RotaryYatAttention:
    torch.manual_seed(0)
    own = {"use_performer": True, "performer_kind": kind, "seed": 1}
    return RotaryYatAttention(16, 2, 300, **own, **KINDS[kind]).eval()


@pytest.fixture(scope="module")
def causal_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("causal") / "m.onnx"
    axes = {"x": {0: "batch", 1: "length"}}
    export(layer_of("slay"), torch.randn(2, 5, 16), path, dynamic_shapes=axes, check=False)
    return path


@pytest.mark.parametrize(("kind", "dtype"), [("maclaurin", None), ("radial", "float16")])
def test_layers_build_with_dynamic_batch_length_and_mask(kind, dtype, tmp_path):
    path = tmp_path / "m.onnx"
    inputs = {"x": torch.randn(2, 5, 16), "mask": torch.ones(2, 1, 1, 5, dtype=torch.bool)}
    axes = {"x": {0: "batch", 1: "length"}, "mask": {0: "batch", 3: "length"}}
    export(layer_of(kind), inputs, path, dynamic_shapes=axes, dtype=dtype, check=False)
    x, mask = (
        ((1, 1, 16), (2, 100, 16), (4, 300, 16)),
        ((1, 1, 1, 1), (2, 1, 1, 100), (4, 1, 1, 300)),
    )
    shapes = {"x": x, "mask": mask}
    record = build(path, tmp_path / "m.engine", shapes=shapes, **OPTIONS).record
    assert (record.plugin.layers, record.plugin.decomposed) == (0, 0)
    assert [output.shape for output in record.outputs] == [[-1, -1, 16]]


def test_the_causal_form_builds_for_any_length(causal_file, tmp_path):
    shapes = {"x": ((1, 1, 16), (2, 100, 16), (4, 300, 16))}
    record = build(causal_file, tmp_path / "m.engine", shapes=shapes, **OPTIONS).record
    assert (record.plugin.layers, record.plugin.decomposed) == (0, 0)
    assert [output.shape for output in record.outputs] == [[-1, -1, 16]]


def test_the_parser_keeps_sums_over_earlier_chunks_exclusive(causal_file, parse, monkeypatch):
    monkeypatch.setattr("tests.engine.test_parser.PARSE", PARSE + CUMULATIVE)
    sums = [line for line in parse(causal_file) if line.startswith("sum")]
    assert sums == ["sum exclusive False"] * 2


def test_a_step_builds_with_its_state(tmp_path):
    layer, path = layer_of("slay"), tmp_path / "m.onnx"
    state = layer.initial_state(2)
    names = ("x", "kv", "k_sum", "position")
    inputs = dict(zip(names, (torch.randn(2, 16), *state), strict=True))
    axes = {name: {0: "batch"} for name in names}
    export(RotaryStep(layer), inputs, path, dynamic_shapes=axes, check=False)
    shapes = {n: tuple((b, *t.shape[1:]) for b in (1, 2, 8)) for n, t in inputs.items()}
    record = build(path, tmp_path / "m.engine", shapes=shapes, **OPTIONS).record
    assert [output.shape[1:] for output in record.outputs] == [
        [16],
        *[list(t.shape[1:]) for t in state],
    ]
