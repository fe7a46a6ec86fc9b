"""YatAttention in standard ops, as TensorRT gets it without the plugin."""

import onnx
import pytest
import torch
from torch import nn

from nmn_export import build, export
from nmn_export.layers import MultiHeadYatAttention
from nmn_export.runtime.onnx_reference import OnnxReferenceRunner
from tests.cases import ATTENTION_CASES, AttentionCase, attention_case, with_dtypes
from tests.engine.test_graph import decomposed
from tests.graph.attention_networks import one_attention_node, tensors_of
from tests.graph.networks import output_of


@pytest.mark.parametrize(("case", "dtype"), with_dtypes(ATTENTION_CASES[::2], torch.float16))
def test_a_decomposed_op_computes_the_same_as_its_body(
    case: AttentionCase, dtype: torch.dtype
) -> None:
    model = one_attention_node(case, dtype, opset=22)
    result = decomposed(model)
    onnx.checker.check_model(result, full_check=True)
    assert {node.domain for node in result.graph.node} == {""}
    assert not result.functions
    inputs = tensors_of(case, dtype)
    expected = output_of(OnnxReferenceRunner(model), **inputs)
    found = output_of(OnnxReferenceRunner(result), **inputs)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def larger(case: AttentionCase) -> dict[str, tuple[int, ...]]:
    """Return shapes with twice the batch and the lengths; a mask broadcasts where it did."""
    inputs = {name: list(t.shape) for name, t in tensors_of(case).items()}
    for name, shape in inputs.items():
        for axis in (0, 2) if name != "M" else (0, 2, 3):
            shape[axis] *= 2 if name != "M" or shape[axis] > 1 else 1
    if "M" in inputs and inputs["M"][0] > 1:
        inputs["M"][0] = inputs["Q"][0]
    return {name: tuple(shape) for name, shape in inputs.items()}


@pytest.mark.parametrize(
    "case_id",
    [
        "plain",
        "odd-sizes",
        "one-key-head",
        "causal-with-earlier-keys",
        "hidden-rows",
        "mask-of-keys",
        "spherical",
        "softermax-cubed",
    ],
)
def test_tensorrt_builds_every_variant_with_a_dynamic_batch_and_lengths(case_id, tmp_path) -> None:
    case = attention_case(case_id)
    onnx.save(one_attention_node(case, torch.float16), tmp_path / "m.onnx")
    small = {name: tuple(t.shape) for name, t in tensors_of(case).items()}
    large = larger(case)
    record = build(
        tmp_path / "m.onnx",
        tmp_path / "m.engine",
        shapes={name: (small[name], small[name], large[name]) for name in small},
        plugin="off",
        compute_capabilities=[89],
    ).record
    assert (record.plugin.layers, record.plugin.decomposed) == (0, 1)
    assert record.layer_counts["MATRIX_MULTIPLY"] >= 2
    assert record.profile["Q"].max == list(large["Q"])


class Decoder(nn.Module):
    """A step of a decoder: new tokens attend to all that a cache holds, and to a memory."""

    def __init__(self) -> None:
        super().__init__()
        self.own = MultiHeadYatAttention(16, 4, num_key_heads=2, is_causal=True)
        self.cross = MultiHeadYatAttention(16, 4)

    def forward(
        self, x: torch.Tensor, cache: torch.Tensor, memory: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        x = x + self.own(x, cache)
        y: torch.Tensor = self.cross(x, memory, key_lengths=lengths)
        return y


@pytest.fixture(scope="module")
def decoder_file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("decoder") / "m.onnx"
    given = {
        "x": torch.randn(2, 3, 16),
        "cache": torch.randn(2, 9, 16),
        "memory": torch.randn(2, 5, 16),
        "lengths": torch.tensor([5, 2]),
    }
    axes = {name: {0: "batch", 1: name} for name in ("x", "cache", "memory")}
    export(Decoder().eval(), given, path, dynamic_shapes=axes | {"lengths": {0: "batch"}})
    return path


def test_tensorrt_builds_a_decoder_whose_lengths_all_vary(decoder_file, tmp_path) -> None:
    sizes = {"x": (1, 4), "cache": (1, 32), "memory": (1, 8)}
    shapes = {n: ((1, low, 16), (2, low, 16), (4, high, 16)) for n, (low, high) in sizes.items()}
    shapes["lengths"] = ((1,), (2,), (4,))
    record = build(
        decoder_file,
        tmp_path / "m.engine",
        shapes=shapes,
        plugin="off",
        compute_capabilities=[89, 120],
    ).record
    assert record.plugin.decomposed == 2
    assert "PLUGIN_V3" not in record.layer_counts
