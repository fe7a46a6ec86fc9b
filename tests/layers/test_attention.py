import inspect
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nmn_export.layers import MultiHeadYatAttention, attention_functions
from nmn_export.ops import exact_yat_attention
from tests.layers.attention_layers import E, H, layer, masks, tokens


def test_the_constructor_takes_upstreams_arguments_in_the_same_order() -> None:
    nmn = pytest.importorskip("nmn.torch")
    expected = inspect.signature(nmn.MultiHeadYatAttention).parameters
    found = inspect.signature(MultiHeadYatAttention).parameters
    ours = [p for p in found.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in expected.values()]
    theirs = inspect.signature(nmn.MultiHeadYatAttention.forward).parameters
    forward = inspect.signature(MultiHeadYatAttention.forward).parameters
    for name, p in theirs.items():
        assert (forward[name].kind, forward[name].default) == (p.kind, p.default), name


OPTIONS = st.fixed_dictionaries(
    {
        "bias": st.booleans(),
        "use_alpha": st.booleans(),
        "constant_alpha": st.none() | st.booleans() | st.floats(-2, 2, width=32),
        "normalize_qk": st.booleans(),
        "spherical": st.booleans(),
        "use_out_proj": st.booleans(),
        "epsilon": st.sampled_from([1e-5, 0.007, 2.0]),
        "dropout": st.sampled_from([0.0, 0.5]),
        "dtype": st.sampled_from([None, torch.float32, torch.float64, torch.float16]),
        "param_dtype": st.sampled_from([None, torch.float32, torch.float64]),
    }
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(options=OPTIONS, data=st.data())
def test_it_computes_what_the_nmn_package_does(
    options: dict[str, Any], data: st.DataObject
) -> None:
    nmn = pytest.importorskip("nmn.torch")
    heads, width = data.draw(st.sampled_from([(1, 5), (2, 4), (4, 2)]), "heads")
    embed = heads * width
    torch.manual_seed(data.draw(st.integers(0, 99), "seed"))
    theirs = nmn.MultiHeadYatAttention(embed, heads, **options).eval()
    ours = MultiHeadYatAttention(embed, heads, **options).eval()
    state = {name: (p.shape, p.dtype) for name, p in theirs.state_dict().items()}
    assert {name: (p.shape, p.dtype) for name, p in ours.state_dict().items()} == state
    ours.load_state_dict(theirs.state_dict())
    for name in ("_constant_alpha_value", "use_alpha", "head_dim", "epsilon", "compute_dtype"):
        assert getattr(ours, name) == getattr(theirs, name), name
    batch, queries, keys = (data.draw(st.integers(1, n), "size") for n in (3, 6, 6))
    x = [torch.randn(batch, queries, embed)]
    cross = data.draw(st.integers(0, 2), "cross")
    x += [torch.randn(batch, keys, embed) for _ in range(cross)]
    shape = (batch, heads, queries, x[-1].shape[1])
    kept = [data.draw(st.booleans(), "axis") for _ in shape]
    mask = torch.rand([n if k else 1 for n, k in zip(shape, kept, strict=True)]) < 0.6
    mask = data.draw(st.sampled_from([None, mask, mask.int(), mask.float()]), "mask")
    with torch.no_grad():
        y, expected = ours(*x, mask=mask), theirs(*x, mask=mask)
    assert y.dtype == expected.dtype
    # Upstream rounds the weights to half precision, and ours are kept in float32.
    tolerance = 4e-3 if y.dtype == torch.float16 else 1e-5
    torch.testing.assert_close(y, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"spherical": True, "constant_alpha": True},
        {"use_softermax": True, "power": 2.5, "use_alpha": False},
        {"learnable_epsilon": True, "epsilon": 0.3},
        {"is_causal": True, "normalize_qk": True},
        {"num_key_heads": 1},
    ],
    ids="+".join,
)
@pytest.mark.parametrize("keys", [5, 7])
def test_the_formula_is_that_of_the_op(options: dict[str, Any], keys: int) -> None:
    y, query, key = layer(**options, dtype=torch.float64), tokens(5).double(), tokens(keys).double()
    q, k, v = (
        p(x).unflatten(-1, (-1, E // H)).transpose(1, 2)
        for p, x in ((y.q_proj, query), (y.k_proj, key), (y.v_proj, key))
    )
    if y.normalize_qk:
        q, k = (t / t.norm(dim=-1, keepdim=True) for t in (q, k))
    epsilon = torch.as_tensor(y.effective_epsilon()).item()
    assert (epsilon > 0.3) == y.learnable_epsilon
    alpha = y.alpha.item() if y.alpha is not None else y.constant_alpha or 1.0
    power = 2.5 if y.use_softermax else 0.0
    attended = exact_yat_attention(
        q, k, v, None, epsilon, alpha / 2, y.is_causal, y.spherical, power, 1e-12
    )
    expected = y.out_proj(attended.transpose(1, 2).flatten(2))
    torch.testing.assert_close(y(query, key), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"num_key_heads": 1}, {"use_softermax": True}])
def test_no_output_of_a_causal_layer_depends_on_later_tokens(options: dict[str, Any]) -> None:
    y, x = layer(is_causal=True, **options), tokens(7)
    later = x.clone()
    later[:, 4:] = 50 * torch.randn(2, 3, E)
    with torch.no_grad():
        for run in (y, y.fold()):
            assert torch.equal(run(x)[:, :4], run(later)[:, :4])
            assert not torch.equal(run(x)[:, 4:], run(later)[:, 4:])


def test_key_heads_serve_the_heads_of_queries_in_a_row() -> None:
    torch.manual_seed(0)
    grouped = MultiHeadYatAttention(E, 6, num_key_heads=2).eval()
    assert grouped.k_proj.weight.shape == grouped.v_proj.weight.shape == (4, E)
    full = MultiHeadYatAttention(E, 6).eval()
    state = grouped.state_dict()
    for name in ("k_proj", "v_proj"):
        for part in ("weight", "bias"):
            rows = state[f"{name}.{part}"].unflatten(0, (2, 2))
            state[f"{name}.{part}"] = rows.repeat_interleave(3, 0).flatten(0, 1)
    full.load_state_dict(state)
    x = tokens(5)
    torch.testing.assert_close(grouped(x), full(x))


def test_weights_are_dropped_in_training_only() -> None:
    y, x = layer(dropout=0.5).train(), tokens(6)
    torch.manual_seed(0)
    assert not torch.equal(y(x), y(x))
    kept = y(x, deterministic=True)
    assert torch.equal(kept, y(x, deterministic=True))
    assert torch.equal(y.eval()(x), kept)
    assert torch.equal(y(x, deterministic=False), kept)


def test_dropping_zeroes_a_share_of_the_weights_and_scales_the_rest() -> None:
    y = layer(dropout=0.25).train()
    q, k = (0.3 * torch.randn(2, 1, H, 200, E // H)).unbind()
    v = torch.eye(200).expand(1, H, 200, 200)
    torch.manual_seed(0)
    ratio = y.attend(q, k, v, None, deterministic=False) / y.attend(q, k, v, None)
    dropped = ratio == 0
    assert 0.2 < dropped.float().mean() < 0.3
    torch.testing.assert_close(ratio[~dropped], torch.full_like(ratio[~dropped], 4 / 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_parameters_and_inputs_are_cast_to_dtype(dtype: torch.dtype) -> None:
    y, x = layer(dtype=dtype, learnable_epsilon=True), tokens(4)
    assert {p.dtype for n, p in y.named_parameters() if n != "epsilon_param"} == {dtype}
    assert y(x).dtype == dtype
    assert torch.equal(y(x), y(x.to(dtype)))
    wide = layer(dtype=dtype, param_dtype=torch.float32)
    assert wide.q_proj.weight.dtype == torch.float32
    assert wide(x).dtype == dtype


def test_without_dtype_the_output_has_that_of_the_query() -> None:
    y = layer(normalize_qk=True)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        out = y(tokens(4).to(dtype), tokens(5))
        assert out.dtype == dtype
        assert out.isfinite().all()


def test_a_zero_vector_is_normalised_to_zero_in_half_precision() -> None:
    y = layer(normalize_qk=True, bias=False).half()
    x = tokens(4).half()
    x[:, 1] = 0
    assert y(x).isfinite().all()


@pytest.mark.parametrize("convert", [torch.nn.Module.half, torch.nn.Module.bfloat16])
def test_a_learned_epsilon_stays_out_of_the_half_precisions(convert: Any) -> None:
    y = convert(MultiHeadYatAttention(E, H, learnable_epsilon=True, epsilon=1e-8))
    assert y.q_proj.weight.dtype != torch.float32
    assert y.epsilon_param.dtype == torch.float32
    assert y.fold().epsilon == pytest.approx(1e-8, rel=1e-4)


FOLDS = [
    {},
    {"constant_alpha": True, "bias": False, "use_out_proj": False},
    {"use_alpha": False, "normalize_qk": True, "learnable_epsilon": True},
    {"spherical": True, "num_key_heads": 1, "is_causal": True},
    {"use_softermax": True, "power": 3.0, "dtype": torch.float16},
    {"dtype": torch.float32, "param_dtype": torch.float64},
]


@pytest.mark.parametrize("options", FOLDS, ids="+".join)
@pytest.mark.parametrize("masked", [False, True])
def test_a_folded_layer_computes_the_same(options: dict[str, Any], masked: bool) -> None:
    y = layer(**options)
    folded = y.fold()
    assert isinstance(folded.scale, float)
    assert not hasattr(folded, "alpha")
    x = (tokens(4), tokens(6), tokens(6, seed=3))
    mask = masks(4, 6) if masked else None
    with torch.no_grad():
        expected, found = y(*x, mask=mask), folded(*x, mask=mask, deterministic=True)
    assert found.dtype == expected.dtype
    step = 8 * torch.finfo(found.dtype).eps
    torch.testing.assert_close(found, expected, rtol=step, atol=step)


@pytest.mark.parametrize(
    "options",
    [{"learnable_epsilon": True}, {"spherical": True, "num_key_heads": 1}, {"is_causal": True}],
    ids="+".join,
)
def test_gradients_match_finite_differences(options: dict[str, Any]) -> None:
    y = layer(epsilon=0.1, dtype=torch.float64, **options)
    names, values = zip(*y.named_parameters(), strict=True)
    mask = masks(3, 3)

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        state = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(y, state, (x,), {"mask": mask})

    x = tokens(3).double().requires_grad_()
    assert torch.autograd.gradcheck(function, (x, *values), fast_mode=True)


@pytest.mark.parametrize("masked", [False, True])
def test_it_compiles(masked: bool) -> None:
    y, x, mask = layer(), tokens(4), masks(4, 4) if masked else None
    compiled = torch.compile(y, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, mask=mask), y(x, mask=mask))


class Calls(TorchDispatchMode):
    """Notes which torch ops are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name())
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("learned", [False, True])
def test_the_op_is_called_where_it_has_kernels(learned: bool, monkeypatch: Any) -> None:
    y, x = layer(use_alpha=learned), tokens(4)
    expected = y(x)

    def is_called() -> bool:
        with Calls() as calls:
            torch.testing.assert_close(y(x), expected)
        return "nmn::yat_attention" in calls.names

    assert not is_called()
    monkeypatch.setattr(attention_functions, "has_kernels", lambda _: True)
    assert is_called() == (not learned)
    with torch.no_grad():  # where a learned α is read as a number
        assert is_called()


def test_initialisation_is_that_of_linear_layers_and_alpha_is_one() -> None:
    y = layer(learnable_epsilon=True, epsilon=0.2)
    torch.manual_seed(1)
    y.reset_parameters()
    bound = 1 / math.sqrt(E)
    assert all(p.abs().max() <= bound for n, p in y.named_parameters() if "proj" in n)
    assert y.alpha.item() == 1
    assert y.fold().epsilon == pytest.approx(0.2)


def test_parameters_are_made_on_the_device_that_is_given() -> None:
    y = MultiHeadYatAttention(E, H, device="meta", learnable_epsilon=True)
    assert {t.device.type for t in y.state_dict().values()} == {"meta"}


def test_the_printed_layer_says_its_options() -> None:
    assert repr(layer()).splitlines()[1].strip() == "embed_dim=12, num_heads=3, epsilon=1e-05"
    shown = repr(layer(num_key_heads=1, is_causal=True, constant_alpha=True, use_softermax=True))
    for option in ("num_key_heads=1", "is_causal=True", "constant_alpha=1.41", "power=1.0"):
        assert option in shown
