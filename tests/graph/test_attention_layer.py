"""Networks with ⵟ-attention as ONNX models."""

from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from nmn_export.graph.capture import capture
from nmn_export.graph.fold import fold
from nmn_export.layers import MultiHeadYatAttention, YatDense, yat_attention
from nmn_export.ops import DOMAIN
from nmn_export.runtime.pytorch import EagerRunner
from tests.graph.networks import assert_valid, output_of, runners

E, H = 12, 3


class Net(nn.Module):
    """An attention with all of its inputs."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.attn = MultiHeadYatAttention(E, H, **options)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        mask: Tensor | None = None,
        added: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        y: Tensor = self.attn(query, key, mask=mask, additive_mask=added, key_lengths=lengths)
        return y


def inputs(kinds: str, batch: int, queries: int, keys: int, seed: int = 0) -> dict[str, Tensor]:
    """Return the query, and the inputs that are named in `kinds`."""
    random = torch.Generator().manual_seed(seed)
    given = {"query": torch.randn(batch, queries, E, generator=random)}
    keys = keys if "key" in kinds else queries
    if "key" in kinds:
        given["key"] = torch.randn(batch, keys, E, generator=random)
    if "mask" in kinds:
        given["mask"] = torch.rand(batch, 1, queries, keys, generator=random) < 0.5
        given["mask"][-1, :, 0] = False  # a query that sees no key
    if "added" in kinds:
        given["added"] = torch.randn(H, queries, keys, generator=random)
    if "lengths" in kinds:
        given["lengths"] = torch.arange(batch) % (keys + 1)
    return given


AXES = {
    "query": {0: "batch", 1: "queries"},
    "key": {0: "batch", 1: "keys"},
    "mask": {0: "batch", 2: "queries", 3: "keys"},
    "added": {1: "queries", 2: "keys"},
    "lengths": {0: "batch"},
}


def axes_of(given: dict[str, Tensor]) -> dict[str, dict[int, str]]:
    axes = {name: dict(AXES[name]) for name in given}
    if "key" not in given:
        for sizes in axes.values():
            sizes.update({axis: "queries" for axis, size in sizes.items() if size == "keys"})
    return axes


def captured(net: nn.Module, given: dict[str, Tensor], **options: Any) -> onnx.ModelProto:
    options = {"opset": 18, "inline": False} | options
    return ir.to_proto(capture(net, given, axes_of(given), **options))


NETS = [
    ("", {}, None),
    ("", {"is_causal": True, "num_key_heads": 1}, torch.float16),
    ("key", {"is_causal": True}, None),
    ("key mask", {"normalize_qk": True}, torch.float16),
    ("mask", {"is_causal": True, "constant_alpha": True}, None),
    ("key lengths", {"spherical": True, "use_out_proj": False}, None),
    ("key mask added lengths", {"use_softermax": True, "power": 2.0}, torch.float16),
    ("key added", {"learnable_epsilon": True, "bias": False}, None),
]


@pytest.mark.parametrize(("kinds", "options", "dtype"), NETS, ids=str)
def test_a_layer_becomes_one_op_between_its_projections(
    kinds: str, options: dict[str, Any], dtype: torch.dtype | None
) -> None:
    net = fold(Net(**options), dtype)
    given = inputs(kinds, 2, 4, 6)

    def convert(given: dict[str, Tensor]) -> dict[str, Tensor]:
        return {n: t.to(dtype) if dtype and t.is_floating_point() else t for n, t in given.items()}

    model = captured(net, convert(given))
    assert_valid(model)
    (node,) = [node for node in model.graph.node if node.domain]
    assert (node.domain, node.op_type, node.name) == (DOMAIN, "YatAttention", "attn")
    assert (node.input[3] == "no_mask") == (not set(kinds.split()) & {"mask", "added", "lengths"})
    names = {n.name for n in model.graph.node}
    assert {"attn.q_proj/MatMul", "attn.k_proj/MatMul", "attn.v_proj/MatMul"} <= names
    assert ("attn.out_proj/MatMul" in names) == options.get("use_out_proj", True)
    assert not {n for n in names if "_empty" in n}
    eager = EagerRunner(net)
    for sizes in ((2, 4, 6), (3, 7, 5), (1, 1, 9)):
        case = convert(inputs(kinds, *sizes, seed=sum(sizes)))
        expected = output_of(eager, **case)
        if "mask" in kinds and "out_proj" in str(net):
            assert not expected[-1, 0].any()
        tolerance = 4e-3 if dtype else 2e-5
        for runner in runners(model):
            y = output_of(runner, **case)
            torch.testing.assert_close(y, expected, rtol=tolerance, atol=tolerance)


def test_an_empty_batch_gives_an_empty_result() -> None:
    net = fold(Net(is_causal=True))
    given = inputs("key mask", 2, 4, 6)
    runtime, _ = runners(captured(net, given))
    assert output_of(runtime, **{n: t[:0] for n, t in given.items()}).shape == (0, 4, E)


def test_an_inlined_layer_has_standard_ops_under_its_name() -> None:
    net, given = fold(Net(is_causal=True)), inputs("key mask", 2, 4, 6)
    model = captured(net, given, inline=True)
    assert_valid(model)
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    assert "attn/Softmax" in {node.name for node in model.graph.node}
    expected = output_of(EagerRunner(net), **given)
    for runner in runners(model):
        torch.testing.assert_close(output_of(runner, **given), expected, rtol=2e-5, atol=2e-5)


class Block(nn.Module):
    """Two attentions with other options, of which one has a mask, and a ⵟ layer between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = MultiHeadYatAttention(E, H, is_causal=True)
        self.dense = YatDense(E, E)
        self.second = MultiHeadYatAttention(E, 2, spherical=True, num_key_heads=1)

    def forward(self, query: Tensor, mask: Tensor) -> Tensor:
        x = query + self.first(query)
        y: Tensor = self.second(x + self.dense(x), mask=mask)
        return y


def test_the_attentions_of_a_network_share_one_function() -> None:
    torch.manual_seed(7)
    net, given = fold(Block()), inputs("mask", 2, 4, 4)
    model = captured(net, given)
    assert_valid(model)
    found = [node.name for node in model.graph.node if node.op_type == "YatAttention"]
    assert found == ["first", "second"]
    assert sorted(f.name for f in model.functions) == ["YatAttention", "YatDense"]
    for sizes in ((2, 4, 4), (3, 6, 6)):
        case = inputs("mask", *sizes, seed=sum(sizes))
        expected = output_of(EagerRunner(net), **case)
        for runner in runners(model):
            y = output_of(runner, **case)
            torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


class Functional(nn.Module):
    """The function, with α as a number or learned."""

    def __init__(self, learned: bool) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor([1.7])) if learned else None
        self.proj = nn.Linear(E, 2 * E)

    def forward(self, query: Tensor, mask: Tensor) -> Tensor:
        q = query.unflatten(-1, (H, -1))
        k, v = self.proj(query).chunk(2, -1)
        k, v = (t.unflatten(-1, (H, -1)) for t in (k, v))
        alpha = 1.7 if self.alpha is None else self.alpha
        return yat_attention(q, k, v, mask, training=False, alpha=alpha).flatten(2)


@pytest.mark.parametrize("learned", [False, True])
def test_the_function_becomes_one_op_unless_alpha_is_learned(learned: bool) -> None:
    torch.manual_seed(8)
    net, given = Functional(learned).eval(), inputs("mask", 2, 4, 4)
    model = captured(net, given)
    assert_valid(model)
    ops = [node.op_type for node in model.graph.node]
    assert ("YatAttention" in ops) == (not learned)
    assert ("Softmax" in ops) == learned
    expected = output_of(EagerRunner(net), **given)
    for runner in runners(model):
        y = output_of(runner, **given)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


def test_the_function_is_standard_ops_in_an_export_by_pytorch() -> None:
    net, given = Functional(False).eval(), inputs("mask", 2, 4, 4)
    program = torch.export.export(net, tuple(given.values()))
    assert "nmn" not in str(program.graph)


def test_a_constant_key_is_no_weight_of_a_kernel_bank() -> None:
    """Keys and values may be parameters, whose rows may begin like those of others."""

    class Memory(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            keys = torch.randn(1, 6, H, 4)
            self.keys = nn.ParameterList([keys, keys[:, :4].clone()])

        def forward(self, query: Tensor) -> Tensor:
            q = query.unflatten(-1, (H, 4))
            attended = [yat_attention(q, k, k, training=False) for k in self.keys]
            return (attended[0] - attended[1]).flatten(2)

    torch.manual_seed(9)
    net, given = Memory().eval(), {"query": torch.randn(1, 5, E)}
    model = ir.to_proto(capture(net, given, {}, 18, False))
    assert_valid(model)
    assert not {node.op_type for node in model.graph.node} & {"Slice"}
    expected = output_of(EagerRunner(net), **given)
    for runner in runners(model):
        y = output_of(runner, **given)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
