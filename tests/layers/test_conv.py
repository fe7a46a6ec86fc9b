import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nmn_export.layers
from nmn_export.layers import (
    YatConv,
    YatConv1D,
    YatConv1d,
    YatConv2D,
    YatConv2d,
    YatConv3D,
    YatConv3d,
    YatConvTranspose2d,
)
from tests.layers.options import assert_folds_to_itself, drawn, shuffle, state_keys

LAYERS = {1: YatConv1d, 2: YatConv2d, 3: YatConv3d}

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}

SIZES = {1: (9,), 2: (7, 8), 3: (5, 4, 6)}

IN, OUT = 4, 6


def x(rank: int = 2, channels: int = IN) -> Tensor:
    return torch.randn(2, channels, *SIZES[rank], generator=torch.Generator().manual_seed(5))


def layer(rank: int = 2, kernel: object = 3, **options: object) -> YatConv:
    return shuffle(LAYERS[rank](IN, OUT, kernel, **options))


def formula(
    y: YatConv,
    *,
    weight: Tensor | None = None,
    bias: Tensor | float = 0.0,
    epsilon: float = 1e-5,
    alpha: float = 1.0,
    **geometry: object,
) -> Tensor:
    """The ⵟ-product in float64 from two PyTorch convolutions with the same geometry."""
    w = (y.weight if weight is None else weight).detach().double()
    rank = w.ndim - 2

    def convolve(t: Tensor, filters: Tensor) -> Tensor:
        conv = CONVOLUTIONS[rank](IN, OUT, w.shape[2:], bias=False, **geometry).double()
        conv.weight = nn.Parameter(filters)
        result: Tensor = conv(t).detach()
        return result

    inputs, per_channel = x(rank).double(), (-1, *[1] * rank)
    dot = convolve(inputs, w)
    w_sq = w.square().flatten(1).sum(1).reshape(per_channel)
    distance = convolve(inputs.square(), torch.ones_like(w)) + w_sq - 2 * dot
    b = torch.as_tensor(bias, dtype=torch.float64).detach().expand(OUT).reshape(per_channel)
    return (alpha * (dot + b).square() / (distance + epsilon)).float()


def assert_computes(y: YatConv, expected: Tensor) -> None:
    torch.testing.assert_close(y.eval()(x(y.rank)), expected, rtol=5e-5, atol=1e-6)


def test_the_names_of_upstream_are_these_layers() -> None:
    assert (YatConv1D, YatConv2D, YatConv3D) == (YatConv1d, YatConv2d, YatConv3d)
    assert set(nmn_export.layers.__all__) >= {"YatConv2d", "YatConv2D", "YatConv1d", "YatConv3d"}


@pytest.mark.parametrize(
    ("rank", "kernel", "geometry"),
    [
        (1, 3, {}),
        (2, (2, 3), {}),
        (3, (1, 2, 3), {}),
        (1, 4, {"stride": 3, "padding": 2}),
        (2, 3, {"stride": (2, 3), "padding": (2, 0)}),
        (3, 2, {"stride": (1, 2, 3), "padding": (0, 1, 1)}),
        (1, 3, {"dilation": 3, "padding": "valid"}),
        (2, (3, 2), {"dilation": (2, 4)}),
        (1, 4, {"padding": "same"}),
        (2, (2, 5), {"padding": "same", "dilation": (3, 1)}),
        (3, (2, 3, 4), {"padding": "same"}),
        (2, 3, {"groups": 2, "padding": 1}),
        (1, 3, {"groups": 2, "stride": 2, "dilation": 2}),
        (1, 5, {"padding": 3, "padding_mode": "reflect"}),
        (2, 3, {"padding": (2, 1), "padding_mode": "reflect", "stride": 2}),
        (3, 2, {"padding": (1, 2, 3), "padding_mode": "reflect"}),
        (2, 3, {"padding": (4, 1), "padding_mode": "replicate", "groups": 2}),
        (3, 3, {"padding": 2, "padding_mode": "replicate"}),
        (1, 3, {"padding": 4, "padding_mode": "circular"}),
        (2, (4, 3), {"padding": "same", "padding_mode": "circular"}),
        (2, 2, {"padding": "same", "padding_mode": "reflect", "dilation": 3}),
        (2, 3, {"padding": 0, "padding_mode": "circular"}),
        (2, 3, {"padding": "valid", "padding_mode": "reflect"}),
    ],
    ids=lambda value: str(value).replace(" ", ""),
)
def test_the_geometry_is_that_of_a_torch_convolution(
    rank: int, kernel: object, geometry: dict[str, object]
) -> None:
    y = layer(rank, kernel, use_alpha=False, **geometry)
    assert_computes(y, formula(y, bias=y.bias, **geometry))
    assert_folds_to_itself(y, x(rank))


@pytest.mark.parametrize("groups", [1, 2])
def test_the_bias_is_inside_the_square_and_one_a_filter(groups: int) -> None:
    y = layer(use_alpha=False, groups=groups)
    assert y.bias.shape == (OUT,)
    assert_computes(y, formula(y, bias=y.bias, groups=groups))


def test_a_layer_without_bias() -> None:
    y = layer(bias=False, use_alpha=False)
    assert y.bias is None
    assert_computes(y, formula(y))


def test_a_scalar_bias_is_one_for_all() -> None:
    y = layer(scalar_bias=True, use_alpha=False)
    assert y.bias.shape == (1,)
    assert_computes(y, formula(y, bias=y.bias))


def test_a_softplus_bias_is_the_softplus_of_its_parameter() -> None:
    y = layer(softplus_bias=True, use_alpha=False)
    assert_computes(y, formula(y, bias=F.softplus(y.bias)))


@pytest.mark.parametrize("bias", [True, False])
def test_a_constant_bias_is_no_parameter_and_wins_over_bias(bias: bool) -> None:
    y = layer(bias=bias, constant_bias=0.25, use_alpha=False)
    assert y.bias is None
    assert_computes(y, formula(y, bias=0.25))


def test_alpha_is_a_learned_multiplier() -> None:
    y = layer(bias=False)
    assert y.alpha.shape == (1,)
    assert_computes(y, formula(y, alpha=y.alpha.item()))


@pytest.mark.parametrize(("constant", "value"), [(True, math.sqrt(2)), (0.0, 0.0), (-1.5, -1.5)])
@pytest.mark.parametrize("learned", [True, False])
def test_a_constant_alpha_is_no_parameter_and_wins_over_use_alpha(
    constant: float | bool, value: float, learned: bool
) -> None:
    y = layer(bias=False, use_alpha=learned, constant_alpha=constant)
    assert y.alpha is None
    assert_computes(y, formula(y, alpha=value))


def test_a_geometric_alpha_is_the_exponent_of_the_scale_of_the_filters() -> None:
    y = layer(bias=False, use_alpha="geometric")
    assert_computes(y, formula(y, alpha=(OUT / math.log(1 + OUT)) ** y.alpha.item()))


def test_a_learned_epsilon_starts_at_epsilon_and_is_a_softplus() -> None:
    y = LAYERS[2](IN, OUT, 3, epsilon=0.007, learnable_epsilon=True, bias=False, use_alpha=False)
    assert_computes(y, formula(y, epsilon=0.007))
    with torch.no_grad():
        y.epsilon_param.fill_(0.4)
    assert_computes(y, formula(y, epsilon=F.softplus(torch.tensor(0.4)).item()))


def test_weight_normalized_compares_with_unit_filters() -> None:
    y = layer(weight_normalized=True, bias=False, use_alpha=False)
    norm = y.weight.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    assert_computes(y, formula(y, weight=y.weight / norm))


@pytest.mark.parametrize("kind", [torch.bool, torch.float32, torch.float64])
@pytest.mark.parametrize("normalized", [False, True])
def test_a_mask_multiplies_the_filters_before_they_are_normalised(
    kind: torch.dtype, normalized: bool
) -> None:
    mask = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 0]]).to(kind)
    y = layer(mask=mask, bias=False, use_alpha=False, weight_normalized=normalized)
    masked = y.weight * mask.float()
    norm = masked.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    assert_computes(y, formula(y, weight=masked / norm if normalized else masked))


def test_weights_are_dropped_in_training_only() -> None:
    y = YatConv2d(IN, OUT, 3, use_dropconnect=True, drop_rate=0.5)
    torch.manual_seed(0)
    assert not torch.equal(y(x()), y(x()))
    kept = y(x(), deterministic=True)
    assert torch.equal(y(x(), deterministic=True), kept)
    assert torch.equal(y.eval()(x()), kept)
    assert torch.equal(y(x(), deterministic=False), kept)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_parameters_and_inputs_are_cast_to_dtype(dtype: torch.dtype) -> None:
    y = YatConv2d(IN, OUT, 3, dtype=dtype, learnable_epsilon=True)
    assert {p.dtype for n, p in y.named_parameters() if n != "epsilon_param"} == {dtype}
    assert y(x()).dtype == dtype
    assert torch.equal(y(x()), y(x().to(dtype)))


def test_without_dtype_the_output_has_that_of_the_input() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert layer()(x().to(dtype)).dtype == dtype


def test_state_dict_has_the_names_of_upstream() -> None:
    mask = torch.ones(3, 3)
    assert state_keys(YatConv2d(IN, OUT, 3)) == {"weight", "bias", "alpha"}
    assert state_keys(YatConv1d(IN, OUT, 3, bias=False, constant_alpha=1)) == {"weight"}
    assert state_keys(YatConv2d(IN, OUT, 3, learnable_epsilon=True, mask=mask)) == {
        "weight", "bias", "alpha", "epsilon_param", "mask",
    }  # fmt: skip


@drawn(YatConv2d)
def test_a_folded_layer_computes_the_same(options: dict[str, object]) -> None:
    y = shuffle(YatConv2d(IN, OUT, **options))
    assert_folds_to_itself(y, x())


@pytest.mark.parametrize(
    ("rank", "options"),
    [
        (1, {"learnable_epsilon": True, "softplus_bias": True, "padding": 1}),
        (2, {"use_alpha": "geometric", "scalar_bias": True, "weight_normalized": True}),
        (2, {"padding": 1, "padding_mode": "reflect", "groups": 2, "stride": 2}),
        (3, {"mask": torch.tensor([1.0, 0]), "constant_bias": 0.5, "constant_alpha": -1.0}),
    ],
    ids=lambda value: value if isinstance(value, int) else "+".join(value),
)
def test_gradients_match_finite_differences(rank: int, options: dict[str, object]) -> None:
    y = layer(rank, 2, epsilon=0.1, dtype=torch.float64, **options)
    names, values = zip(*y.named_parameters(), strict=True)

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(y, dict(zip(names, parameters, strict=True)), x)

    inputs = x(rank)[:1, ..., :4].double().requires_grad_()
    assert torch.autograd.gradcheck(function, (inputs, *values), fast_mode=True)


def test_gradients_in_float32_are_close_to_those_in_float64() -> None:
    options = {"learnable_epsilon": True, "padding": 1, "groups": 2, "epsilon": 0.01}
    single = layer(**options)
    double = YatConv2d(IN, OUT, 3, dtype=torch.float64, **options)
    double.load_state_dict(single.state_dict())
    for y in (single, double):
        y(x()).square().mean().backward()
    for (name, p), q in zip(single.named_parameters(), double.parameters(), strict=True):
        torch.testing.assert_close(p.grad.double(), q.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_a_layer_learns_to_tell_edges_apart() -> None:
    torch.manual_seed(0)
    images = 0.1 * torch.randn(32, 1, 6, 6)
    labels = torch.arange(32) % 2
    images[labels == 0, :, 2] += 1
    images[labels == 1, :, :, 2] += 1
    conv = YatConv2d(1, 4, 3, epsilon=0.1)
    net = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    before = conv.weight.detach().clone()
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    assert not torch.allclose(conv.weight, before)


def test_the_printed_layer_says_its_geometry() -> None:
    assert repr(YatConv1d(4, 6, 3, 2, padding=1, epsilon=0.5)) == (
        "YatConv1d(4, 6, kernel_size=(3,), stride=(2,), padding=(1,), epsilon=0.5)"
    )
    layer = YatConv2d(4, 6, 3, padding="same", groups=2, bias=False, use_alpha=False)
    plain = repr(nn.Conv2d(4, 6, 3, padding="same", groups=2, bias=False))
    assert repr(layer) == "Yat" + plain.removesuffix(")") + ", alpha=False, epsilon=1e-05)"


@pytest.mark.parametrize("transposed", [False, True])
def test_an_image_without_a_batch_axis_is_a_batch_of_one(transposed: bool) -> None:
    layer = YatConvTranspose2d(3, 4, 3) if transposed else YatConv2d(3, 4, 3, padding=1)
    x = torch.randn(3, 6, 7)
    expected = layer(x.unsqueeze(0)).squeeze(0)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.fold()(x), expected)
