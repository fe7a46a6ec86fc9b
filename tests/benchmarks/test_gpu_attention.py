"""Attention in the GPU benchmark, on a CPU in Triton's interpreter."""

import pytest
import torch

from benchmarks import gpu_attention, gpu_worker
from benchmarks.gpu_attention import AttentionSubject
from benchmarks.gpu_attention_shapes import (
    ATTENTION_SHAPES,
    TINY_ATTENTION_SHAPES,
    VALUABLE_ATTENTION_SHAPES,
    AttentionShape,
)
from benchmarks.gpu_queue import Item, candidates
from benchmarks.gpu_subjects import WrongResultError, check
from nmn_export.ops import exact_yat_attention

PROMPT, TOKEN = TINY_ATTENTION_SHAPES


def names(shape: AttentionShape) -> str:
    return shape.name


@pytest.mark.parametrize("shape", TINY_ATTENTION_SHAPES, ids=names)
def test_contestants_compute_the_same(shape: AttentionShape) -> None:
    torch.manual_seed(0)
    subject = AttentionSubject(shape, "float16", "cpu")
    q = subject.draw_near()
    options = (gpu_attention.EPSILON, subject.scale, shape.is_causal, False, 0.0, 0.0)
    exact = exact_yat_attention(q, subject.k, subject.v, None, *options)
    for name in ("fused", "flex", "eager"):
        y = getattr(subject, name)(q)
        torch.testing.assert_close(y.double(), exact, rtol=2e-2, atol=5e-3)
    y = subject.fused(q)
    assert subject.is_near_exact(q, y)
    assert not subject.is_near_exact(q, 1.02 * y)


def test_softmax_attention_is_causal_as_ours_is() -> None:
    subject = AttentionSubject(PROMPT, "float16", "cpu")
    q = subject.draw()
    before = subject.linear(q)
    for t in (subject.k, subject.v):
        t[:, :, -1] += 1
    after = subject.linear(q)
    assert torch.equal(before[:, :, :-1], after[:, :, :-1])
    assert not torch.equal(before[:, :, -1], after[:, :, -1])


def test_contestants_that_do_not_support_a_shape_are_recorded_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_attention, "MOST_SCORES", 100)
    (record,) = gpu_worker.Bench("cpu", 2).execute(Item("timing", PROMPT, "float16"))
    assert set(record["seconds"]) == {"linear", "flash", "fused", "flex"}
    assert set(record["unsupported"]) == {"cudnn", "eager"}
    assert record["unsupported"]["eager"] == "more than 100 scores"
    assert record["memory"] == {"fused_workspace": 4 * 2 * 20}  # norms of keys


def test_a_fused_kernel_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AttentionSubject, "fused", AttentionSubject.fused)  # undone at the end
    monkeypatch.setattr(gpu_worker.Subject, "fused", gpu_worker.Subject.fused)
    gpu_worker.break_kernel("wrong", "attention")
    with pytest.raises(WrongResultError, match="differs from eager"):
        list(gpu_worker.Bench("cpu", 2).execute(Item("timing", TOKEN, "float16")))
    with pytest.raises(WrongResultError, match="does not agree with float64"):
        check(AttentionSubject(TOKEN, "bfloat16", "cpu"), 1)


@pytest.mark.parametrize("shape", TINY_ATTENTION_SHAPES, ids=names)
def test_candidates_can_be_launched(shape: AttentionShape) -> None:
    subject = AttentionSubject(shape, "float16", "cpu")
    swept = list(candidates(shape, "float16"))
    assert len(set(swept)) == len(swept) >= 10
    for candidate in (swept[0], swept[-1]):
        subject.assert_close_to_unfused(subject.choice_of(candidate))


def test_shapes_have_lengths_from_1_k_to_128_k_and_linear_scratch_memory() -> None:
    prompts = [s for s in ATTENTION_SHAPES if s.queries > 1]
    assert {s.queries for s in prompts} == {1024, 4096, 16384}
    assert {s.features for s in prompts} == {64, 128}
    lengths = {s.keys for s in ATTENTION_SHAPES if s.queries == 1}
    assert {4096, 131072} <= lengths
    assert set(VALUABLE_ATTENTION_SHAPES) < set(ATTENTION_SHAPES)
    assert len({s.name for s in ATTENTION_SHAPES}) == len(ATTENTION_SHAPES)
    assert all(1 < s.target < 2 for s in ATTENTION_SHAPES)
    # All prompts have as many tokens in all, so linear scratch memory is the same for all.
    workspace = {(s.features, 4 * s.batch * s.key_heads * s.keys) for s in prompts}
    assert len(workspace) == 2


def test_flops_are_those_of_scores_that_are_not_hidden() -> None:
    assert AttentionShape(1, 2, 2, 3, 3, 8, True).flops == 4 * 8 * 2 * (1 + 2 + 3)
    assert AttentionShape(1, 2, 1, 3, 5, 8).flops == 4 * 8 * 2 * 15
    assert AttentionShape(1, 1, 1, 2, 5, 1, True).scores == 4 + 5
