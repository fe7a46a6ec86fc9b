import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nmn_export.graph.capture import OPSETS, capture
from nmn_export.ops.linear_attention import CHUNK
from nmn_export.runtime.arrays import to_numpy
from nmn_export.runtime.onnx_runtime import OnnxRuntimeRunner
from tests.cases import LinearAttentionCase, linear_attention_case
from tests.cases.linear_attention import assert_near_exact
from tests.graph.networks import assert_valid, output_of, runners

NAMES = ("qf", "kf", "v")

FILES = ("one-past-a-chunk", "many-chunks", "signed", "hidden-keys", "large", "tiny")
"""Cases that are exported. The others differ from them in sizes only."""


class Causal(nn.Module):
    """One op, of the guard of a case."""

    def __init__(self, case: LinearAttentionCase) -> None:
        super().__init__()
        self.options = (case.epsilon, case.signed)

    def forward(self, qf: Tensor, kf: Tensor, v: Tensor) -> Tensor:
        return torch.ops.nmn.causal_linear_attention(qf, kf, v, *self.options)


def model_of(case: LinearAttentionCase, opset: int = 18) -> onnx.ModelProto:
    """Return the op, exported with an example of a few tokens. Batch and length are dynamic."""
    sizes = (case.features, case.features, case.value_features)
    example = inputs_of(tuple(torch.rand(2, *case.lead[1:], 3, size) for size in sizes))
    axes = {0: "batch", len(case.lead): "length"}
    return ir.to_proto(capture(Causal(case), example, dict.fromkeys(NAMES, axes), opset, False))


def inputs_of(tensors: tuple[Tensor, ...]) -> dict[str, Tensor]:
    return dict(zip(NAMES, tensors, strict=True))


@pytest.mark.parametrize("case_id", FILES)
def test_an_example_of_a_few_tokens_gives_a_file_for_any_length(case_id: str) -> None:
    case = linear_attention_case(case_id)
    model = model_of(case)
    assert_valid(model)
    assert not model.functions
    assert {node.domain for node in model.graph.node} == {""}
    for runner in runners(model):
        arguments = case.arguments()
        assert_near_exact(output_of(runner, **inputs_of(arguments[:3])), arguments)


def test_the_newest_opset_gives_the_same_numbers() -> None:
    case = linear_attention_case("signed")
    arguments = case.arguments()
    model = model_of(case, OPSETS[-1])
    assert_valid(model)
    for runner in runners(model):
        assert_near_exact(output_of(runner, **inputs_of(arguments[:3])), arguments)


def test_empty_batches_and_lengths_at_the_bounds_of_a_chunk() -> None:
    case = LinearAttentionCase("bounds", features=4, value_features=5)
    runner = OnnxRuntimeRunner(model_of(case))
    for batch, length in itertools.product((0, 2), (0, 1, CHUNK, 2 * CHUNK)):
        tensors = tuple(torch.rand(batch, 2, length, size) for size in (4, 4, 5))
        y = output_of(runner, **inputs_of(tensors))
        expected = torch.ops.nmn.causal_linear_attention(*tensors, case.epsilon, False)
        assert y.shape == expected.shape
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)


LEAK = linear_attention_case("signed")


@pytest.fixture(scope="module")
def leak_runner() -> OnnxRuntimeRunner:
    return OnnxRuntimeRunner(model_of(LEAK))


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(
    length=st.integers(2, 4 * CHUNK),
    later=st.floats(0, 1),
    size=st.sampled_from([1.0, 1e-20, 1e12]),
    changed=st.sampled_from(NAMES),
)
def test_a_later_token_does_not_change_one_bit(
    leak_runner: OnnxRuntimeRunner, length: int, later: float, size: float, changed: str
) -> None:
    random = np.random.default_rng(length)
    first = max(1, min(length - 1, round(later * length)))
    shapes = {"qf": LEAK.features, "kf": LEAK.features, "v": LEAK.value_features}
    inputs = {
        name: random.standard_normal((1, 2, length, last), dtype=np.float32)
        for name, last in shapes.items()
    }
    (before,) = leak_runner.run(inputs).values()
    changes = random.standard_normal(inputs[changed][:, :, first:].shape)
    inputs[changed][:, :, first:] = size * changes
    (after,) = leak_runner.run(inputs).values()
    assert np.array_equal(before[:, :, :first], after[:, :, :first])
    assert not np.array_equal(before[:, :, first:], after[:, :, first:])


def test_no_value_in_the_file_has_all_pairs_or_all_products() -> None:
    case = LinearAttentionCase("large", lead=(1, 1), features=32, value_features=48)
    model = model_of(case)
    names = [name for node in model.graph.node for name in node.output if name]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    length = 40 * CHUNK
    tensors = (
        torch.rand(1, 1, length, 32),
        torch.rand(1, 1, length, 32),
        torch.rand(1, 1, length, 48),
    )
    inputs = {name: to_numpy(t) for name, t in inputs_of(tensors).items()}
    values = OnnxRuntimeRunner(model).run(inputs)
    assert len(values) == len(names)
    assert max(value.size for value in values.values()) <= length * CHUNK
