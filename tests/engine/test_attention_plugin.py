"""Engines in which the plugin computes YatAttention."""

from pathlib import Path

import onnx
import pytest
import torch

from nmn_export import CheckError, build, export
from nmn_export.layers import MultiHeadYatAttention
from tests.cases import AttentionCase, attention_case
from tests.graph.attention_networks import one_attention_node, tensors_of

CASES = (
    "plain",
    "causal-with-earlier-keys",
    "grouped-keys",
    "mask-per-head",
    "spherical",
    "softermax-cubed",
    "scale-negative",
)


@pytest.mark.parametrize("case_id", CASES)
def test_an_op_is_one_plugin_layer(case_id: str, tmp_path: Path) -> None:
    case = attention_case(case_id)
    onnx.save(one_attention_node(case, torch.float16), tmp_path / "m.onnx")
    shapes = {name: tuple(t.shape) for name, t in tensors_of(case, torch.float16).items()}
    record = build(
        tmp_path / "m.onnx",
        tmp_path / "m.engine",
        shapes=shapes,
        plugin="require",
        compute_capabilities=[89],
    ).record
    assert (record.plugin.layers, record.plugin.decomposed) == (1, 0)
    assert record.layer_counts["PLUGIN_V3"] == 1
    assert b"YatAttention" in (tmp_path / "m.engine").read_bytes()


@pytest.mark.parametrize("mask", ["none", "additive", "keys"])
def test_batch_and_lengths_vary_within_a_profile(mask: str, tmp_path: Path) -> None:
    case = AttentionCase("profile", heads=4, key_heads=2, features=64, mask=mask)
    onnx.save(one_attention_node(case, torch.float16), tmp_path / "m.onnx")

    def sizes(batch: int, queries: int, keys: int) -> dict[str, tuple[int, ...]]:
        masks = {"additive": (1, 4, queries, keys), "keys": (batch, 1, 1, keys)}
        inputs = {"Q": (batch, 4, queries, 64), "K": (batch, 2, keys, 64)}
        return inputs | {"V": inputs["K"]} | ({"M": masks[mask]} if mask in masks else {})

    least, usual, most = sizes(1, 1, 1), sizes(4, 16, 128), sizes(16, 512, 2048)
    shapes = {name: (least[name], usual[name], most[name]) for name in usual}
    built = build(
        tmp_path / "m.onnx",
        tmp_path / "m.engine",
        shapes=shapes,
        plugin="require",
        compute_capabilities=[120],
    )
    assert built.record.plugin.layers == 1
    assert built.record.profile["Q"].max == [16, 4, 512, 64]
    assert [t.shape for t in built.record.outputs] == [[-1, 4, -1, 64]]


def test_a_layer_in_a_network_with_dynamic_batch_and_length(tmp_path: Path) -> None:
    layer = MultiHeadYatAttention(32, 4).eval()
    dynamic = {"query": {0: "batch", 1: "length"}}
    export(layer, torch.randn(2, 6, 32), tmp_path / "m.onnx", dynamic_shapes=dynamic, check=False)
    shapes = {"query": ((1, 1, 32), (4, 100, 32), (8, 512, 32))}
    options = {"shapes": shapes, "compute_capabilities": [89]}
    record = build(tmp_path / "m.onnx", tmp_path / "e.engine", plugin="require", **options).record
    assert (record.plugin.layers, record.plugin.decomposed) == (1, 0)


def test_sizes_that_the_plugin_refuses_are_decomposed_and_reported(tmp_path: Path) -> None:
    case = AttentionCase("wide", features=272)
    onnx.save(one_attention_node(case), tmp_path / "m.onnx")
    shapes = {name: tuple(t.shape) for name, t in tensors_of(case).items()}
    options = {"shapes": shapes, "compute_capabilities": [89]}
    record = build(tmp_path / "m.onnx", tmp_path / "e.engine", **options).record
    assert (record.plugin.layers, record.plugin.decomposed) == (0, 1)
    (reason,) = record.plugin.reasons.values()
    assert "at most 256 features per head; got 272" in reason
    with pytest.raises(CheckError, match="at most 256 features per head"):
        build(tmp_path / "m.onnx", tmp_path / "f.engine", plugin="require", **options)
