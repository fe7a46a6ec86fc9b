import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nmn_export.layers
from nmn_export.layers import NMNLayer, YatDense, YatNMN
from nmn_export.ops import exact_yat_dense
from tests.layers.options import assert_folds_to_itself, drawn, shuffle, state_keys

IN, OUT = 6, 5


def layer(**options: object) -> YatDense:
    return shuffle(YatDense(IN, OUT, **options))


def x(*batch: int) -> Tensor:
    return torch.randn(*(batch or (4,)), IN, generator=torch.Generator().manual_seed(7))


def formula(
    y: YatDense,
    *,
    weight: Tensor | None = None,
    bias: Tensor | float | None = None,
    epsilon: float = 1e-5,
    alpha: Tensor | float = 1.0,
    spherical: bool = False,
) -> Tensor:
    """The exact ⵟ-product of `x()` with the layer's weights and the given options."""
    w = y.weight if weight is None else weight
    b = None if bias is None else torch.as_tensor(bias, dtype=torch.float64).expand(OUT)
    return exact_yat_dense(x(), w, b, epsilon, float(alpha), spherical).detach().float()


def assert_computes(y: YatDense, expected: Tensor) -> None:
    torch.testing.assert_close(y.eval()(x()), expected, rtol=2e-5, atol=1e-7)


def test_the_names_in_the_seeds_are_this_layer() -> None:
    assert YatNMN is YatDense
    assert NMNLayer is YatDense
    assert set(nmn_export.layers.__all__) >= {"YatDense", "YatNMN", "NMNLayer"}


def test_bias_is_learned_one_a_prototype() -> None:
    y = layer(alpha=False)
    assert y.bias.shape == (OUT,)
    assert_computes(y, formula(y, bias=y.bias))


def test_a_layer_without_bias() -> None:
    y = layer(bias=False, alpha=False)
    assert y.bias is None
    assert_computes(y, formula(y))


def test_a_scalar_bias_is_one_for_all() -> None:
    y = layer(scalar_bias=True, alpha=False)
    assert y.bias.shape == (1,)
    assert_computes(y, formula(y, bias=y.bias))


@pytest.mark.parametrize("scalar", [False, True])
def test_a_softplus_bias_is_the_softplus_of_its_parameter(scalar: bool) -> None:
    y = layer(softplus_bias=True, scalar_bias=scalar, alpha=False)
    assert_computes(y, formula(y, bias=F.softplus(y.bias)))


@pytest.mark.parametrize("bias", [True, False])
def test_a_constant_bias_is_no_parameter_and_wins_over_bias(bias: bool) -> None:
    y = layer(bias=bias, constant_bias=-0.75, alpha=False)
    assert y.bias is None
    assert_computes(y, formula(y, bias=-0.75))


def test_a_constant_bias_of_zero_is_a_constant() -> None:
    assert YatDense(IN, OUT, constant_bias=0.0).bias is None


def test_alpha_is_a_learned_multiplier() -> None:
    y = layer(bias=False)
    assert y.alpha.shape == (1,)
    assert_computes(y, formula(y, alpha=y.alpha.item()))


@pytest.mark.parametrize(("constant", "value"), [(True, math.sqrt(2)), (0.0, 0.0), (-1.5, -1.5)])
@pytest.mark.parametrize("learned", [True, False])
def test_a_constant_alpha_is_no_parameter_and_wins_over_alpha(
    constant: float | bool, value: float, learned: bool
) -> None:
    y = layer(bias=False, alpha=learned, constant_alpha=constant)
    assert y.alpha is None
    assert_computes(y, formula(y, alpha=value))


def test_a_geometric_alpha_is_the_exponent_of_the_scale() -> None:
    y = layer(bias=False, alpha="geometric")
    scale = (OUT / math.log(1 + OUT)) ** y.alpha.item()
    assert y.alpha.item() != 1
    assert_computes(y, formula(y, alpha=scale))


def test_a_constant_exponent_makes_a_constant_geometric_scale() -> None:
    y = layer(bias=False, alpha="geometric", constant_alpha=0.5)
    assert y.alpha is None
    assert_computes(y, formula(y, alpha=math.sqrt(OUT / math.log(1 + OUT))))


def test_epsilon_is_added_to_the_distance() -> None:
    y = layer(bias=False, alpha=False, epsilon=2.5)
    assert_computes(y, formula(y, epsilon=2.5))


@pytest.mark.parametrize("epsilon", [1e-5, 0.007, 3.0])
def test_a_learned_epsilon_starts_at_epsilon(epsilon: float) -> None:
    y = YatDense(IN, OUT, epsilon=epsilon, learnable_epsilon=True)
    assert F.softplus(y.epsilon_param).item() == pytest.approx(epsilon, rel=1e-5)


def test_a_learned_epsilon_is_the_softplus_of_its_parameter() -> None:
    y = layer(bias=False, alpha=False, learnable_epsilon=True)
    with torch.no_grad():
        y.epsilon_param.fill_(-0.3)
    assert_computes(y, formula(y, epsilon=F.softplus(torch.tensor(-0.3)).item()))


def test_spherical_compares_directions() -> None:
    y = layer(spherical=True, alpha=False)
    assert_computes(y, formula(y, bias=y.bias, spherical=True))
    torch.testing.assert_close(y(7 * x()), y(x()), rtol=1e-4, atol=1e-6)


def test_weight_normalized_compares_with_unit_prototypes() -> None:
    y = layer(weight_normalized=True, bias=False, alpha=False)
    assert_computes(y, formula(y, weight=y.weight / y.weight.norm(dim=1, keepdim=True)))


@pytest.mark.parametrize("kind", [torch.bool, torch.float32, torch.float64])
def test_a_mask_multiplies_the_weights_before_they_are_normalised(kind: torch.dtype) -> None:
    mask = torch.tensor([1, 0, 1, 1, 0, 1]).to(kind)
    y = layer(mask=mask, weight_normalized=True, bias=False, alpha=False)
    masked = y.weight * mask.float()
    assert_computes(y, formula(y, weight=masked / masked.norm(dim=1, keepdim=True)))
    assert "mask" in y.state_dict()


def test_weights_are_dropped_in_training_only() -> None:
    y = YatDense(64, 32, use_dropconnect=True, drop_rate=0.5)
    inputs = torch.randn(2, 64)
    torch.manual_seed(0)
    assert not torch.equal(y(inputs), y(inputs))
    assert torch.equal(y(inputs, deterministic=True), y(inputs, deterministic=True))
    kept = y(inputs, deterministic=True)
    assert torch.equal(y.eval()(inputs), kept)
    assert torch.equal(y(inputs, deterministic=False), kept)


def test_dropping_zeroes_a_share_of_the_weights_and_scales_the_rest() -> None:
    y = YatDense(200, 200, use_dropconnect=True, drop_rate=0.25)
    torch.manual_seed(0)
    ratio = (y.effective_weight(drop=True) / y.weight).detach()
    dropped = ratio == 0
    assert 0.2 < dropped.float().mean() < 0.3
    torch.testing.assert_close(ratio[~dropped], torch.full_like(ratio[~dropped], 4 / 3))


def test_drop_rate_does_nothing_without_use_dropconnect() -> None:
    y = YatDense(IN, OUT, drop_rate=0.9)
    assert torch.equal(y(x()), y.eval()(x()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_parameters_and_inputs_are_cast_to_dtype(dtype: torch.dtype) -> None:
    y = YatDense(IN, OUT, dtype=dtype, learnable_epsilon=True)
    assert {p.dtype for n, p in y.named_parameters() if n != "epsilon_param"} == {dtype}
    assert y(x()).dtype == dtype
    assert torch.equal(y(x()), y(x().to(dtype)))


def test_without_dtype_the_output_has_that_of_the_input() -> None:
    y = layer()
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert y(x().to(dtype)).dtype == dtype


@pytest.mark.parametrize("batch", [(3,), (1,), (2, 3), (2, 1, 3, 2)])
def test_leading_axes_are_kept(batch: tuple[int, ...]) -> None:
    assert layer()(x(*batch)).shape == (*batch, OUT)


def test_a_layer_uses_the_first_rows_of_a_larger_weight() -> None:
    y = layer(bias=False, alpha=False)
    first = y.weight.detach().clone()
    y.weight = nn.Parameter(torch.cat([first, torch.randn(3, IN)]))
    assert_computes(y, formula(y, weight=first))
    assert y.fold().weight.shape == (OUT, IN)


def test_state_dict_has_the_names_of_upstream() -> None:
    mask = torch.ones(OUT, IN)
    assert state_keys(YatDense(IN, OUT)) == {"weight", "bias", "alpha"}
    assert state_keys(YatDense(IN, OUT, bias=False, constant_alpha=True)) == {"weight"}
    assert state_keys(YatDense(IN, OUT, learnable_epsilon=True, mask=mask)) == {
        "weight", "bias", "alpha", "epsilon_param", "mask",
    }  # fmt: skip


@drawn(YatDense)
def test_a_folded_layer_computes_the_same(options: dict[str, object]) -> None:
    y = shuffle(YatDense(IN, OUT, **options))
    assert_folds_to_itself(y, x(3))


@pytest.mark.parametrize(
    "options",
    [
        {"learnable_epsilon": True, "softplus_bias": True},
        {"alpha": "geometric", "scalar_bias": True, "weight_normalized": True},
        {"spherical": True, "constant_alpha": -0.5},
        {"mask": torch.tensor([1.0, 0, 1, 1, 0, 1]), "constant_bias": 0.5},
    ],
    ids="+".join,
)
def test_gradients_match_finite_differences(options: dict[str, object]) -> None:
    y = shuffle(YatDense(IN, OUT, epsilon=0.1, dtype=torch.float64, **options))
    names, values = zip(*y.named_parameters(), strict=True)

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(y, dict(zip(names, parameters, strict=True)), x)

    inputs = x().double().requires_grad_()
    assert torch.autograd.gradcheck(function, (inputs, *values))


def test_gradients_in_float32_are_close_to_those_in_float64() -> None:
    single = layer(learnable_epsilon=True, softplus_bias=True, epsilon=0.01)
    double = YatDense(IN, OUT, learnable_epsilon=True, softplus_bias=True, dtype=torch.float64)
    double.load_state_dict(single.state_dict())
    for y in (single, double):
        y(x()).square().mean().backward()
    for (name, p), q in zip(single.named_parameters(), double.parameters(), strict=True):
        torch.testing.assert_close(p.grad.double(), q.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_two_layers_learn_xor() -> None:
    torch.manual_seed(3)
    inputs = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    labels = torch.tensor([0, 1, 1, 0])
    net = nn.Sequential(YatDense(2, 8, epsilon=0.1), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(inputs), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    assert torch.equal(net(inputs).argmax(1), labels)


def test_the_printed_layer_says_its_sizes() -> None:
    assert repr(YatDense(IN, OUT, epsilon=0.5)) == (
        "YatDense(in_features=6, out_features=5, bias=True, epsilon=0.5)"
    )
    shown = repr(YatDense(IN, OUT, constant_bias=2, constant_alpha=True, spherical=True, lazy=True))
    for option in ("bias=True", "constant_bias=2.0", "constant_alpha=1.41", "spherical", "lazy"):
        assert option in shown
