"""`check` of networks with ⵟ-attention, whose inputs are no weights."""

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from nmn_export import NmnExportError, check, export
from nmn_export.layers import MultiHeadYatAttention, YatDense, yat_attention
from nmn_export.ops import exact_yat_attention
from nmn_export.report.compare import DISPLACEMENT
from nmn_export.report.single_attention import AttentionOp, near_keys
from tests.cases import AttentionCase
from tests.graph.attention_networks import one_attention_node
from tests.report.test_check import changed, failed

E, H = 16, 2


class One(nn.Module):
    """One attention."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attn = MultiHeadYatAttention(E, H, **options)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.attn(x)
        return y


class Net(nn.Module):
    """An attention, a ⵟ layer, and the function between three tensors."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.attn = MultiHeadYatAttention(E, H, **options)
        self.dense = YatDense(E, E)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.dense(self.attn(x, mask=mask))
        heads = x.unflatten(-1, (4, 4))
        return yat_attention(heads, heads[:, :, :2], heads[:, :, :2], training=False, scale=0.9)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return Net(num_key_heads=1, is_causal=True).eval()


@pytest.fixture(scope="module")
def file(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("attention") / "m.onnx"
    axes = {0: "batch", 1: "tokens"}
    given = {"x": torch.randn(2, 5, E), "mask": torch.rand(2, 1, 5, 5) < 0.7}
    export(
        net, given, path, dynamic_shapes={"x": axes, "mask": {0: "batch", 2: "tokens", 3: "tokens"}}
    )
    return path


def test_a_faithful_file_passes_everywhere(net: nn.Module, file: Path) -> None:
    comparisons = check(file, net)
    assert not failed(comparisons)
    kinds = {(c.subject, c.inputs) for c in comparisons}
    assert kinds == {
        ("model", "random"),
        ("attn", "near keys"),
        ("dense", "near prototypes"),
        ("YatAttention", "near keys"),
    }


@pytest.mark.parametrize("name", ["epsilon", "scale"])
def test_a_wrong_attribute_is_found_in_its_layer(
    name: str, net: nn.Module, file: Path, tmp_path: Path
) -> None:
    def edit(model: onnx.ModelProto) -> None:
        node = next(n for n in model.graph.node if n.name == "attn")
        attribute = next(a for a in node.attribute if a.name == name)
        attribute.f = 1.5 * attribute.f

    wrong = failed(check(changed(file, tmp_path, edit), net))
    assert {("attn", "onnxruntime"), ("attn", "onnx reference")} <= wrong
    assert not {subject for subject, _ in wrong} & {"dense", "YatAttention"}


def in_bfloat16(model: onnx.ModelProto, name: str) -> None:
    """Round a value of the body of YatAttention to bfloat16."""
    body = next(f for f in model.functions if f.name == "YatAttention").node
    at = next(i for i, n in enumerate(body) if n.output[0] == name)
    uses = [(n, i) for n in body for i, value in enumerate(n.input) if value == name]
    for node, index in uses:
        node.input[index] = "wide"
    body.insert(at + 1, onnx.helper.make_node("Cast", ["narrow"], ["wide"], to=1))
    body.insert(at + 1, onnx.helper.make_node("Cast", [name], ["narrow"], to=16))


@pytest.mark.parametrize("value", ["row", "column"])
def test_norms_in_reduced_precision_are_found(
    value: str, net: nn.Module, file: Path, tmp_path: Path
) -> None:
    wrong = failed(check(changed(file, tmp_path, lambda m: in_bfloat16(m, value)), net))
    assert {("attn", "onnxruntime"), ("YatAttention", "onnxruntime")} <= wrong


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({}, "float16"),
        ({"spherical": True}, None),
        ({"constant_alpha": -3.0}, None),
        ({"constant_alpha": 0.0}, "float16"),
        ({"epsilon": 1e-9, "learnable_epsilon": True}, None),
        ({"use_softermax": True, "power": 2.0, "epsilon": 2.0}, "float16"),
    ],
    ids=str,
)
def test_layers_with_other_options_pass(
    options: dict[str, Any], dtype: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    net = One(**options).eval()
    export(net, torch.randn(2, 4, E), path, dtype=dtype)
    comparisons = check(path, net)
    assert {c.subject for c in comparisons} == {"model", "attn"}
    assert not failed(comparisons)


@pytest.mark.parametrize("epsilon", [1e-9, 1e-5, 2.0])
@pytest.mark.parametrize("scale", [1e-3, -0.35, 5.0])
@pytest.mark.parametrize("spherical", [False, True])
def test_probes_are_close_and_every_key_has_a_share(
    epsilon: float, scale: float, spherical: bool
) -> None:
    options = {"epsilon": epsilon, "scale": scale, "spherical": spherical}
    case = AttentionCase("probe", heads=4, key_heads=2, features=64, value_features=3, **options)
    model = one_attention_node(case, torch.float16)
    (node,) = model.graph.node
    op = AttentionOp(node)
    q, k, v, mask = near_keys(model, node, op, 0).values()
    assert (q.shape, k.shape, v.shape) == ((2, 4, 16, 64), (2, 2, 48, 64), (2, 2, 48, 3))
    assert {t.dtype for t in (q, k, v, mask)} == {torch.float16}
    q, k = q.float(), k.float()
    distance = (q.unsqueeze(3) - k.repeat_interleave(2, 1).unsqueeze(2)).norm(dim=-1)
    if not spherical:
        assert (distance < 0.02 * q.norm(dim=-1, keepdim=True)).all()
    inputs = (q, k, torch.eye(48).expand(2, 2, 48, 48), None, *op.options.values())
    weights = exact_yat_attention(*inputs)
    assert (weights > 1e-6).all()
    assert weights.max() < 0.7
    displaced = exact_yat_attention(*inputs, displacement=DISPLACEMENT)
    if epsilon == 1e-9 and not spherical:  # Otherwise rounding of the distance may be harmless.
        assert (displaced - weights).abs().max() > 1e-3


def test_a_model_may_be_one_layer_or_one_function(tmp_path: Path) -> None:
    layer = MultiHeadYatAttention(E, H).eval()
    export(layer, torch.randn(2, 4, E), tmp_path / "layer.onnx")
    comparisons = check(tmp_path / "layer.onnx", layer)
    assert {c.subject for c in comparisons} == {"model", "YatAttention"}
    assert not failed(comparisons)


@pytest.mark.parametrize(
    ("reference", "missing"),
    [(nn.Identity(), "attn, dense"), (One(), "dense"), (nn.Sequential(One()), "attn, dense")],
    ids=["none", "another", "deeper"],
)
def test_another_model_is_refused(file: Path, reference: nn.Module, missing: str) -> None:
    with pytest.raises(NmnExportError, match=rf"got no layer {missing} in it\. Name that model"):
        check(file, reference)
