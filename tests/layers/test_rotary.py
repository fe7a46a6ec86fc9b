"""Rotary attention, compared with what upstream's Flax NNX layer computed.

`rotary_nnx.npz` has the results of nmn 0.3.5, which `record_rotary.py` wrote.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.graph.fold import fold
from nmn_export.layers import RotaryState, RotaryStep, RotaryYatAttention

RECORDED = np.load(Path(__file__).with_name("rotary_nnx.npz"))

CASES = sorted({name.partition("/")[0] for name in RECORDED})

EMBED, HEADS, LENGTH = 12, 2, 9

PERFORMERS = {
    "slay": {"num_anchor_features": 4, "num_prf_features": 3},
    "maclaurin": {"performer_num_features": 24, "performer_nmax": 8, "epsilon": 0.5},
    "radial": {
        "performer_sketch_m": 4,
        "performer_num_radial": 2,
        "performer_radial_dim": 4,
        "epsilon": 0.5,
    },
}


def performer(kind: str, length: int = 200, **options: object) -> RotaryYatAttention:
    torch.manual_seed(0)
    own = {"use_performer": True, "performer_kind": kind, "causal": True, "seed": 1}
    return RotaryYatAttention(EMBED, HEADS, length, **own, **PERFORMERS[kind], **options).eval()


def tokens(length: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, length, EMBED, generator=torch.Generator().manual_seed(length))


def recorded_layer(case: str) -> RotaryYatAttention:
    """Return the layer of a case with upstream's parameters."""
    options = json.loads(RECORDED[f"{case}/options"].item())
    layer = RotaryYatAttention(EMBED, HEADS, LENGTH, **options, seed=0)
    prefix = f"{case}/state/"
    state = {
        key.removeprefix(prefix).removeprefix("_perf_cache."): torch.from_numpy(RECORDED[key])
        for key in RECORDED
        if key.startswith(prefix)
    }
    state.pop("Z", None)
    ours = {}
    for name, value in state.items():
        if "freqs" in name:
            torch.testing.assert_close(getattr(layer.rotary, name), value, rtol=0, atol=1e-7)
        elif "." in name:
            own = name.replace("kernel", "weight").replace("scale", "weight")
            ours[own] = value.T if name.endswith("kernel") else value
        elif name in ("alpha", "epsilon_param"):
            ours[name] = value
        else:
            ours[f"performer.features.{name.removeprefix('perf_')}"] = value
    if layer.performer_kind == "maclaurin":  # upstream has one row less, which nothing uses
        omegas = "performer.features.omegas"
        ours[omegas] = torch.nn.functional.pad(ours[omegas], (0, 0, 0, 1))
    layer.load_state_dict(ours)
    return layer.eval()


@pytest.mark.parametrize("folded", [False, True], ids=["layer", "folded"])
@pytest.mark.parametrize("case", CASES)
def test_the_layer_computes_what_upstreams_does(case: str, folded: bool) -> None:
    layer = recorded_layer(case)
    layer = fold(layer) if folded else layer
    x, y = (torch.from_numpy(RECORDED[f"{case}/{name}"]) for name in "xy")
    mask = torch.from_numpy(RECORDED[f"{case}/mask"]) if f"{case}/mask" in RECORDED else None
    offset = int(RECORDED[f"{case}/position_offset"])
    result = layer(x, mask, position_offset=offset)
    truth = fold(layer, torch.float64)(x.double(), mask, position_offset=offset)
    # Denominators of signed features come close to zero, where upstream's result has an error too.
    error = (y - truth).abs().max().item()
    assert error < 1e-3 * truth.abs().max()
    limit = max(2e-6, 8 * error)
    torch.testing.assert_close(result.detach(), y, rtol=0, atol=limit)


def test_positions_are_those_of_float64() -> None:
    layer = RotaryYatAttention(EMBED, HEADS, 100_001, theta=100.0)
    angles = 100_000 * 100.0 ** (-np.arange(0, 6, 2) / 6)
    torch.testing.assert_close(
        layer.rotary.freqs_cos[100_000].double(),
        torch.from_numpy(np.cos(angles)),
        rtol=0,
        atol=1e-7,
    )
    assert not any("freqs" in name for name in layer.state_dict())


@pytest.mark.parametrize("kind", PERFORMERS)
@pytest.mark.parametrize("folded", [False, True], ids=["layer", "folded"])
def test_steps_give_what_the_whole_sequence_gives(kind: str, folded: bool) -> None:
    layer = performer(kind, use_bias=True, normalize_qk=True, constant_alpha=0.7).double()
    layer = fold(layer) if folded else layer
    x = tokens(130).double()
    expected = layer(x)
    state, outputs = layer.initial_state(2), []
    for i in range(x.shape[1]):
        y, state = layer.step(x[:, i], state)
        outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs, 1), expected, rtol=1e-5, atol=1e-7)
    assert state.position.tolist() == [130, 130]


def test_a_step_over_thousands_of_tokens_stays_near_float64() -> None:
    layer, x = fold(performer("slay", 5000)), tokens(5000, batch=1)
    truth = fold(layer, torch.float64)(x.double())
    state, outputs = layer.initial_state(1), []
    for i in range(x.shape[1]):
        y, state = layer.step(x[:, i], state)
        outputs.append(y)
    scale = truth.abs().max()
    assert (torch.stack(outputs, 1) - truth).abs().max() < 1e-5 * scale
    assert (layer(x) - truth).abs().max() < 1e-5 * scale


def test_sequences_of_one_batch_may_be_at_different_positions() -> None:
    layer = performer("slay").double()
    x = tokens(20).double()
    expected = layer(x)
    states, outputs = [], []
    for sequence, length in enumerate((7, 15)):
        state = layer.initial_state(1)
        for i in range(length):
            _, state = layer.step(x[sequence : sequence + 1, i], state)
        states.append(state)
    state = RotaryState(*(torch.cat(parts) for parts in zip(*states, strict=True)))
    outputs, _ = layer.step(torch.stack((x[0, 7], x[1, 15])), state)
    torch.testing.assert_close(outputs, torch.stack((expected[0, 7], expected[1, 15])))


def test_the_step_module_has_the_state_as_arguments() -> None:
    layer = performer("slay")
    module, state, x = RotaryStep(layer), layer.initial_state(2), tokens(3)
    first = module(x[:, 0], *state)
    y, after = layer.step(x[:, 0], state)
    assert torch.equal(first[0], y)
    assert all(torch.equal(a, b) for a, b in zip(first[1:], after, strict=True))
    assert set(module.state_dict()) == {f"layer.{name}" for name in layer.state_dict()}


EXACT = {"softmax": {}, "softermax": {"power": 1.5}, "l1": {}}


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(
    kind=st.sampled_from([*PERFORMERS, *EXACT]),
    length=st.integers(2, 150),
    later=st.floats(0, 1),
    size=st.sampled_from([1.0, 1e6]),
)
def test_a_later_token_does_not_change_one_bit(
    kind: str, length: int, later: float, size: float
) -> None:
    if kind in EXACT:
        layer = RotaryYatAttention(
            EMBED, HEADS, length, causal=True, normalization=kind, **EXACT[kind]
        )
    else:
        layer = performer(kind, length)
    first = max(1, min(length - 1, round(later * length)))
    x = tokens(length)
    with torch.no_grad():
        before = layer(x)
        x[:, first:] = size * torch.randn_like(x[:, first:])
        after = layer(x)
    assert torch.equal(before[:, :first], after[:, :first])
    assert not torch.equal(before[:, first:], after[:, first:])


def test_exact_attention_may_be_causal() -> None:
    torch.manual_seed(0)
    layer = RotaryYatAttention(EMBED, HEADS, LENGTH, causal=True, use_bias=True)
    x, mask = tokens(LENGTH), torch.ones(LENGTH, LENGTH, dtype=torch.bool)
    expected = RotaryYatAttention(EMBED, HEADS, LENGTH, use_bias=True)
    expected.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x), expected(x, mask.tril()))
    # The first tokens see themselves only, and this mask hides that.
    mask[:, :3] = False
    y = layer(x, mask)
    assert (y[:, :3] == 0).all()
    assert (y[:, 3:] != 0).any(-1).all()


@pytest.mark.parametrize("kind", [*PERFORMERS, *EXACT])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_near_float32(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    if kind in EXACT:
        layer = RotaryYatAttention(EMBED, HEADS, LENGTH, normalization=kind, epsilon=0.1)
    else:
        layer = performer(kind)
    x = 0.5 * tokens(LENGTH)
    layer.to(dtype)
    assert layer.q_proj.weight.dtype == dtype
    assert layer.rotary.freqs_cos.dtype == torch.float32
    y = layer(x.to(dtype))
    assert y.dtype == dtype
    expected = fold(layer, torch.float32)(x.to(dtype).float())
    scale = expected.abs().max()
    tolerance = (64 if kind in ("maclaurin", "radial") else 8) * torch.finfo(dtype).eps
    assert (y.float() - expected).abs().max() < tolerance * scale
    if kind not in EXACT:
        out, state = layer.step(x[:, 0].to(dtype), layer.initial_state(2))
        assert out.dtype == dtype
        assert {state.kv.dtype, state.k_sum.dtype} == {torch.float32}


def test_folding_to_half_precision_keeps_constants_in_float32() -> None:
    folded = fold(performer("radial"), torch.float16)
    features = dict(folded.performer.features.named_buffers())
    assert features
    assert {t.dtype for t in (*features.values(), folded.rotary.freqs_sin)} == {torch.float32}
    assert folded.v_proj.weight.dtype == torch.float16
    assert folded(tokens(5).half()).dtype == torch.float16


def test_folding_replaces_learned_numbers() -> None:
    layer = performer("slay", learnable_epsilon=True)
    with torch.no_grad():
        layer.alpha.fill_(1.7)
        layer.epsilon_param.fill_(-3.0)
    folded = fold(layer)
    assert not {"alpha", "epsilon_param"} & set(dict(folded.named_parameters()))
    assert "alpha" in dict(layer.named_parameters())
    torch.testing.assert_close(folded(tokens(5)), layer(tokens(5)).detach())


@pytest.mark.parametrize("kind", [*PERFORMERS, *EXACT])
def test_learned_numbers_receive_gradients(kind: str) -> None:
    options = {"learnable_epsilon": True}
    if kind in EXACT:
        layer = RotaryYatAttention(EMBED, HEADS, LENGTH, normalization=kind, **options)
    else:
        layer = performer(kind, **options)
    layer(tokens(5)).square().sum().backward()
    assert layer.alpha.grad.abs().sum() > 0
    if kind not in ("maclaurin", "radial"):  # whose ε was used when they were drawn
        assert layer.epsilon_param.grad.abs().sum() > 0


def test_a_seed_draws_the_same_features_and_pytorchs_seed_does_too() -> None:
    def features(seed: int | None) -> Tensor:
        torch.manual_seed(5)
        layer = RotaryYatAttention(EMBED, HEADS, use_performer=True, seed=seed)
        return layer.performer.features.anchors

    assert torch.equal(features(3), features(3))
    assert torch.equal(features(None), features(None))
    assert not torch.equal(features(3), features(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"num_heads": 5},
            "embed_dim must be an even multiple of num_heads; got embed_dim=12, num",
        ),
        ({"num_heads": 4}, "embed_dim must be an even multiple of num_heads"),
        (
            {"normalization": "max"},
            "normalization must be one of softmax, softermax, l1; got 'max'",
        ),
        ({"power": 0.0}, "power must be positive and finite; got 0.0"),
        ({"epsilon": 0.0}, "epsilon must be positive and finite"),
        ({"constant_alpha": math.inf}, "constant_alpha must be finite"),
        (
            {"use_performer": True, "performer_kind": "may"},
            "performer_kind must be one of slay, ma",
        ),
        ({"use_performer": True, "num_prf_features": 0}, "num_prf_features must be at least 1"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(NmnExportError, match=message):
        RotaryYatAttention(EMBED, **({"num_heads": HEADS} | options))


def test_bad_inputs_are_refused() -> None:
    layer = RotaryYatAttention(EMBED, HEADS, LENGTH)
    with pytest.raises(NmnExportError, match=r"shape \[batch, length, 12\]; got torch.float32 of"):
        layer(torch.ones(2, 3, 11))
    with pytest.raises(NmnExportError, match=r"got torch\.int64 of shape \(2, 3, 12\)"):
        layer(torch.ones(2, 3, EMBED, dtype=torch.int64))
    with pytest.raises(NmnExportError, match="There are 9 positions; got 5 tokens from position 5"):
        layer(tokens(5), position_offset=5)
    with pytest.raises(NmnExportError, match="Only a causal performer has a state; got exact"):
        layer.initial_state(1)
    with pytest.raises(NmnExportError, match="has a state; got causal=False"):
        RotaryYatAttention(EMBED, HEADS, use_performer=True).initial_state(1)
    slay = performer("slay")
    with pytest.raises(NmnExportError, match=r"tokens of shape \[batch, 12\]; got"):
        slay.step(tokens(3), slay.initial_state(2))
