import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nmn_export.layers
from nmn_export.errors import OptionError
from nmn_export.layers import (
    YatConvTranspose,
    YatConvTranspose1D,
    YatConvTranspose1d,
    YatConvTranspose2D,
    YatConvTranspose2d,
    YatConvTranspose3D,
    YatConvTranspose3d,
)
from tests.layers.options import assert_folds_to_itself, drawn, shuffle, state_keys

LAYERS = {1: YatConvTranspose1d, 2: YatConvTranspose2d, 3: YatConvTranspose3d}

CONVOLUTIONS = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}

SIZES = {1: (9,), 2: (5, 6), 3: (3, 4, 3)}

IN, OUT = 4, 6


def x(rank: int = 2) -> Tensor:
    return torch.randn(2, IN, *SIZES[rank], generator=torch.Generator().manual_seed(5))


def layer(rank: int = 2, kernel: object = 3, **options: object) -> YatConvTranspose:
    return shuffle(LAYERS[rank](IN, OUT, kernel, **options))


def formula(
    y: YatConvTranspose,
    *,
    weight: Tensor | None = None,
    bias: Tensor | float = 0.0,
    epsilon: float = 1e-5,
    alpha: float = 1.0,
    groups: int = 1,
    output_size: list[int] | None = None,
    **geometry: object,
) -> Tensor:
    """The ⵟ-product in float64 from two PyTorch layers with the same geometry."""
    w = (y.weight if weight is None else weight).detach().double()
    rank = w.ndim - 2

    def convolve(t: Tensor, filters: Tensor) -> Tensor:
        options = {"bias": False, "groups": groups, **geometry}
        conv = CONVOLUTIONS[rank](IN, OUT, w.shape[2:], **options).double()
        conv.weight = nn.Parameter(filters)
        result: Tensor = conv(t, output_size).detach()
        return result

    inputs, per_channel = x(rank).double(), (-1, *[1] * rank)
    dot = convolve(inputs, w)
    w_sq = torch.cat([part.square().transpose(0, 1).flatten(1).sum(1) for part in w.chunk(groups)])
    distance = convolve(inputs.square(), torch.ones_like(w)) + w_sq.reshape(per_channel) - 2 * dot
    b = torch.as_tensor(bias, dtype=torch.float64).detach().expand(OUT).reshape(per_channel)
    return (alpha * (dot + b).square() / (distance + epsilon)).float()


def assert_computes(y: YatConvTranspose, expected: Tensor) -> None:
    torch.testing.assert_close(y.eval()(x(y.rank)), expected, rtol=5e-5, atol=1e-6)


def test_the_names_of_upstream_are_these_layers() -> None:
    assert YatConvTranspose1D is YatConvTranspose1d
    assert YatConvTranspose2D is YatConvTranspose2d
    assert YatConvTranspose3D is YatConvTranspose3d
    names = {f"YatConvTranspose{rank}{letter}" for rank in (1, 2, 3) for letter in "dD"}
    assert set(nmn_export.layers.__all__) >= names


@pytest.mark.parametrize(
    ("rank", "kernel", "geometry"),
    [
        (1, 3, {}),
        (2, (2, 3), {}),
        (3, (1, 2, 3), {}),
        (1, 4, {"stride": 2, "padding": 1}),
        (2, 3, {"stride": (2, 3), "padding": (2, 0)}),
        (2, 3, {"stride": 2, "padding": 1, "output_padding": 1}),
        (3, 2, {"stride": (1, 2, 3), "padding": (0, 1, 1), "output_padding": (0, 0, 2)}),
        (1, 2, {"stride": 4, "output_padding": 3}),
        (2, (3, 2), {"dilation": (2, 4)}),
        (2, 2, {"dilation": 3, "output_padding": 2}),
        (1, 3, {"dilation": 2, "stride": 3, "padding": 2}),
        (2, 3, {"groups": 2, "padding": 1}),
        (1, 3, {"groups": 2, "stride": 2, "dilation": 2}),
        (3, 2, {"groups": 2, "stride": 2, "output_padding": (1, 0, 1)}),
    ],
    ids=lambda value: str(value).replace(" ", ""),
)
def test_the_geometry_is_that_of_a_torch_layer(
    rank: int, kernel: object, geometry: dict[str, object]
) -> None:
    y = layer(rank, kernel, use_alpha=False, **geometry)
    assert_computes(y, formula(y, bias=y.bias, **geometry))
    assert_folds_to_itself(y, x(rank))


@pytest.mark.parametrize("size", [[9, 11], [10, 12], [9, 12]], ids=str)
@pytest.mark.parametrize("whole", [False, True], ids=["spatial", "whole"])
def test_an_output_size_replaces_the_output_padding(size: list[int], whole: bool) -> None:
    geometry = {"stride": 2, "padding": 1}
    y = layer(use_alpha=False, output_padding=1, **geometry).eval()
    wanted = [2, OUT, *size] if whole else size
    expected = formula(y, bias=y.bias, output_size=size, **geometry)
    found = y(x(), wanted)
    assert list(found.shape[2:]) == size
    torch.testing.assert_close(found, expected, rtol=5e-5, atol=1e-6)
    torch.testing.assert_close(y.fold()(x(), output_size=wanted), found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ([8, 12], r"from \(9, 11\) to \(10, 12\) for this input; got \(8, 12\)\. Ask for"),
        ([9, 13], r"from \(9, 11\) to \(10, 12\) for this input; got \(9, 13\)\."),
        ([9], r"output_size must be 2 numbers, or 4 with batch and channels; got 1: \(9,\)\."),
        ([6, 9, 11], r"output_size must be 2 numbers, or 4 .*; got 3: \(6, 9, 11\)\. Give"),
    ],
    ids=["small", "large", "few", "many"],
)
def test_an_output_size_that_the_stride_does_not_lead_to_is_refused(
    size: list[int], message: str
) -> None:
    y = layer(stride=2, padding=1).eval()
    for forward in (y, y.fold()):
        with pytest.raises(OptionError, match=message):
            forward(x(), size)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_bias_is_inside_the_square_and_one_a_filter(groups: int) -> None:
    y = layer(use_alpha=False, groups=groups)
    assert y.bias.shape == (OUT,)
    assert_computes(y, formula(y, bias=y.bias, groups=groups))


def test_a_bias_may_be_scalar_and_the_softplus_of_its_parameter() -> None:
    y = layer(scalar_bias=True, softplus_bias=True, use_alpha=False)
    assert y.bias.shape == (1,)
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
    y = layer(bias=False, use_alpha="geometric", groups=2)
    alpha = (OUT / math.log(1 + OUT)) ** y.alpha.item()
    assert_computes(y, formula(y, alpha=alpha, groups=2))


def test_a_learned_epsilon_starts_at_epsilon_and_is_a_softplus() -> None:
    y = LAYERS[2](IN, OUT, 3, epsilon=0.007, learnable_epsilon=True, bias=False, use_alpha=False)
    assert_computes(y, formula(y, epsilon=0.007))
    with torch.no_grad():
        y.epsilon_param.fill_(0.4)
    assert_computes(y, formula(y, epsilon=F.softplus(torch.tensor(0.4)).item()))


def unit_filters(weight: Tensor, groups: int) -> Tensor:
    """Divide each filter, which has the input channels of one group, by its norm."""
    parts = weight.chunk(groups)
    return torch.cat([p / p.square().sum((0, 2, 3), keepdim=True).sqrt() for p in parts])


@pytest.mark.parametrize("groups", [1, 2])
def test_weight_normalized_compares_with_unit_filters(groups: int) -> None:
    y = layer(weight_normalized=True, bias=False, use_alpha=False, groups=groups)
    assert_computes(y, formula(y, weight=unit_filters(y.weight, groups), groups=groups))


@pytest.mark.parametrize("kind", [torch.bool, torch.float32, torch.float64])
@pytest.mark.parametrize("normalized", [False, True])
def test_a_mask_multiplies_the_filters_before_they_are_normalised(
    kind: torch.dtype, normalized: bool
) -> None:
    mask = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 0]]).to(kind)
    y = layer(mask=mask, bias=False, use_alpha=False, weight_normalized=normalized, groups=2)
    masked = y.weight * mask.float()
    weight = unit_filters(masked, 2) if normalized else masked
    assert_computes(y, formula(y, weight=weight, groups=2))


def test_weights_are_dropped_in_training_only() -> None:
    y = YatConvTranspose2d(IN, OUT, 3, use_dropconnect=True, drop_rate=0.5)
    torch.manual_seed(0)
    assert not torch.equal(y(x()), y(x()))
    kept = y(x(), deterministic=True)
    assert torch.equal(y(x(), deterministic=True), kept)
    assert torch.equal(y.eval()(x()), kept)
    assert torch.equal(y(x(), deterministic=False), kept)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_parameters_and_inputs_are_cast_to_dtype(dtype: torch.dtype) -> None:
    assert layer()(x().to(dtype)).dtype == dtype
    y = YatConvTranspose2d(IN, OUT, 3, dtype=dtype, learnable_epsilon=True)
    assert {p.dtype for n, p in y.named_parameters() if n != "epsilon_param"} == {dtype}
    assert y(x()).dtype == dtype
    assert torch.equal(y(x()), y(x().to(dtype)))


def test_state_dict_has_the_names_of_upstream() -> None:
    mask = torch.ones(3, 3)
    assert state_keys(YatConvTranspose2d(IN, OUT, 3)) == {"weight", "bias", "alpha"}
    assert state_keys(YatConvTranspose1d(IN, OUT, 3, bias=False, constant_alpha=1)) == {"weight"}
    assert state_keys(YatConvTranspose2d(IN, OUT, 3, learnable_epsilon=True, mask=mask)) == {
        "weight", "bias", "alpha", "epsilon_param", "mask",
    }  # fmt: skip


@drawn(YatConvTranspose2d)
def test_a_folded_layer_computes_the_same(options: dict[str, object]) -> None:
    y = shuffle(YatConvTranspose2d(IN, OUT, **options))
    assert_folds_to_itself(y, x())


@pytest.mark.parametrize(
    ("rank", "options"),
    [
        (1, {"learnable_epsilon": True, "softplus_bias": True, "padding": 1}),
        (2, {"use_alpha": "geometric", "weight_normalized": True, "groups": 2}),
        (2, {"stride": 2, "output_padding": 1, "groups": 2, "scalar_bias": True}),
        (3, {"mask": torch.tensor([1.0, 0]), "constant_bias": 0.5, "constant_alpha": -1.0}),
    ],
    ids=lambda value: value if isinstance(value, int) else "+".join(value),
)
def test_gradients_match_finite_differences(rank: int, options: dict[str, object]) -> None:
    y = layer(rank, 2, epsilon=0.1, dtype=torch.float64, **options)
    names, values = zip(*y.named_parameters(), strict=True)

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(y, dict(zip(names, parameters, strict=True)), x)

    inputs = x(rank)[:1, ..., :3].double().requires_grad_()
    assert torch.autograd.gradcheck(function, (inputs, *values), fast_mode=True)


def test_a_layer_learns_to_double_an_image() -> None:
    torch.manual_seed(0)
    images = torch.rand(16, 1, 4, 4)
    wanted = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    up = YatConvTranspose2d(1, 4, 2, stride=2, epsilon=0.1)
    net = nn.Sequential(up, nn.Conv2d(4, 1, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    before = up.weight.detach().clone()
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = F.mse_loss(net(images), wanted)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    assert not torch.allclose(up.weight, before)


def test_the_printed_layer_says_its_geometry() -> None:
    assert repr(YatConvTranspose1d(4, 6, 3, 2, padding=1, epsilon=0.5)) == (
        "YatConvTranspose1d(4, 6, kernel_size=(3,), stride=(2,), padding=(1,), epsilon=0.5)"
    )
    options = {"stride": 2, "output_padding": 1, "groups": 2, "dilation": 2, "bias": False}
    y = YatConvTranspose2d(4, 6, 3, use_alpha=False, **options)
    plain = repr(nn.ConvTranspose2d(4, 6, 3, **options))
    shown = ("output_padding=(1, 1)", "dilation=(2, 2)", "groups=2", "bias=False")
    assert all(option in plain and option in repr(y) for option in shown)
