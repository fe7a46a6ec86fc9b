"""Constructors, parameters and attributes are those of the `nmn` package's layers."""

import copy
import inspect
import io
import pickle

import pytest
import torch
from torch import nn

from nmn_export.layers import (
    NMNLayer,
    YatConv1D,
    YatConv1d,
    YatConv2D,
    YatConv2d,
    YatConv3D,
    YatConv3d,
    YatConvTranspose1d,
    YatConvTranspose2d,
    YatConvTranspose3d,
    YatDense,
    YatLayer,
    YatNMN,
)

upstream_dense = pytest.importorskip("nmn.torch.nmn")
upstream_conv = pytest.importorskip("nmn.torch.layers")

PAIRS = {
    "dense": (YatDense, upstream_dense.YatNMN, (6, 4), (3, 6)),
    "conv1d": (YatConv1d, upstream_conv.YatConv1D, (4, 6, 3), (2, 4, 7)),
    "conv2d": (YatConv2d, upstream_conv.YatConv2D, (4, 6, 3), (2, 4, 7, 7)),
    "conv3d": (YatConv3d, upstream_conv.YatConv3D, (4, 6, 2), (2, 4, 5, 5, 5)),
}

TRANSPOSED = {
    "transpose1d": (YatConvTranspose1d, upstream_conv.YatConvTranspose1D, (4, 6, 3), (2, 4, 7)),
    "transpose2d": (YatConvTranspose2d, upstream_conv.YatConvTranspose2D, (4, 6, 3), (2, 4, 5, 5)),
    "transpose3d": (
        YatConvTranspose3d,
        upstream_conv.YatConvTranspose3D,
        (4, 6, 2),
        (2, 4, 3, 3, 3),
    ),
}


def each(pairs: dict[str, tuple[object, ...]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("ours", "theirs", "sizes", "shape"), pairs.values(), ids=list(pairs)
    )


every_layer = each(PAIRS | TRANSPOSED)
layers_with_banks = each(PAIRS)
transposed_layers = each(TRANSPOSED)


@pytest.fixture(autouse=True)
def no_banks():
    YatLayer._KERNEL_BANKS.clear()
    for _, theirs, _, _ in PAIRS.values():
        theirs._KERNEL_BANKS.clear()
        theirs._KERNEL_BANK_USED.clear()


def parameters(cls: type) -> list[inspect.Parameter]:
    return [
        p
        for p in inspect.signature(cls.__init__).parameters.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD
    ]


@every_layer
def test_constructors_take_the_same_arguments_in_the_same_order(ours, theirs, sizes, shape) -> None:
    expected, found = parameters(theirs), parameters(ours)
    assert [p.name for p in found] == [p.name for p in expected]
    # The only other default: our dense layer stores its parameters in `dtype`.
    differing = {p.name for p, q in zip(expected, found, strict=True) if p.default != q.default}
    assert differing <= {"param_dtype"}


def test_both_spellings_of_a_name_are_one_class() -> None:
    assert YatNMN is NMNLayer is YatDense
    assert (YatConv1D, YatConv2D, YatConv3D) == (YatConv1d, YatConv2d, YatConv3d)


OPTIONS = [
    {},
    {"bias": False},
    {"bias": False, "constant_alpha": True},
    {"constant_bias": 0.5},
    {"constant_bias": False},
    {"constant_bias": 0.0, "bias": False},
    {"softplus_bias": True, "scalar_bias": True},
    {"softplus_bias": True, "bias": False},
    {"constant_alpha": 0.0},
    {"constant_alpha": False},
    {"learnable_epsilon": True, "epsilon": 0.01},
    {"param_dtype": torch.float64},
    {"param_dtype": torch.float16, "dtype": torch.float32, "learnable_epsilon": True},
    {"param_dtype": torch.float32, "dtype": torch.float64},
]

OPTIONS_WITH_BANKS = [
    {"weight_normalized": True},
    {"tie_kernel_bank": True, "kernel_bank_size": 8, "kernel_bank_id": "a"},
]

TRANSPOSED_OPTIONS = [
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"stride": 3, "groups": 2, "softplus_bias": True},
    {"dilation": 2, "groups": 2, "constant_bias": 0.5},
    {"use_alpha": False, "scalar_bias": True, "stride": 2},
]

ATTRIBUTES = (
    "_constant_alpha_value", "_constant_bias_value", "use_alpha", "epsilon", "learnable_epsilon",
    "weight_normalized", "softplus_bias", "scalar_bias", "tie_kernel_bank", "kernel_bank_size",
    "kernel_bank_id", "lazy", "spherical", "positive_init", "in_features", "out_features",
    "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups",
    "padding_mode", "use_dropconnect", "drop_rate", "compute_dtype", "transposed",
)  # fmt: skip


@every_layer
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_layers_have_the_same_parameters_and_compute_the_same(
    ours, theirs, sizes, shape, options
) -> None:
    assert_same_layers(ours, theirs, sizes, shape, options)


@layers_with_banks
@pytest.mark.parametrize("options", OPTIONS_WITH_BANKS, ids=str)
def test_layers_with_banks_have_the_same_parameters_and_compute_the_same(
    ours, theirs, sizes, shape, options
) -> None:
    assert_same_layers(ours, theirs, sizes, shape, options)


@transposed_layers
@pytest.mark.parametrize("options", TRANSPOSED_OPTIONS, ids=str)
def test_transposed_layers_have_the_same_parameters_and_compute_the_same(
    ours, theirs, sizes, shape, options
) -> None:
    assert_same_layers(ours, theirs, sizes, shape, options)
    assert ours(*sizes, **options).output_padding == theirs(*sizes, **options).output_padding


@transposed_layers
def test_an_output_size_means_the_same(ours, theirs, sizes, shape) -> None:
    mine, other = ours(*sizes, stride=3).eval(), theirs(*sizes, stride=3).eval()
    mine.load_state_dict(other.state_dict())
    x = torch.randn(shape)
    least = other(x).shape[2:]
    for extra in range(3):
        size = [n + extra for n in least]
        torch.testing.assert_close(mine(x, size), other(x, size), rtol=1e-5, atol=1e-6)
    for size in ([n - 1 for n in least], [n + 3 for n in least]):
        for layer in (mine, other):
            with pytest.raises(ValueError, match=r"output.size"):
                layer(x, size)


def assert_same_layers(
    ours: type, theirs: type, sizes: tuple[int, ...], shape: tuple[int, ...], options: dict
) -> None:
    """Fail unless layers with some options have equal parameters, attributes and outputs."""
    torch.manual_seed(0)
    mine, other = ours(*sizes, **options).eval(), theirs(*sizes, **options).eval()
    assert {k: (v.shape, v.dtype) for k, v in mine.state_dict().items()} == {
        k: (v.shape, v.dtype) for k, v in other.state_dict().items()
    }
    mine.load_state_dict(other.state_dict())
    for name in ATTRIBUTES:
        if hasattr(other, name):
            assert getattr(mine, name) == getattr(other, name), name
    x = torch.randn(shape, dtype=options.get("dtype"))
    with torch.no_grad():
        torch.testing.assert_close(mine(x), other(x), rtol=1e-5, atol=1e-6)


def test_use_alpha_is_an_option_of_convolutions_and_an_attribute_of_all() -> None:
    assert not YatDense(3, 2, alpha=False).use_alpha
    assert not YatConv1d(3, 2, 1, use_alpha=False).use_alpha
    assert YatConv1d(3, 2, 1, use_alpha=False, constant_alpha=2).use_alpha


@pytest.mark.parametrize("option", ["lazy", "freeze_kernel"])
@pytest.mark.parametrize(
    "make", [lambda **o: YatDense(3, 2, **o), lambda **o: YatConv1d(3, 2, 1, **o)]
)
def test_a_lazy_layer_trains_all_but_its_weights(make, option) -> None:
    layer = make(**{option: True}, learnable_epsilon=True)
    wants = {name: p.requires_grad for name, p in layer.named_parameters()}
    assert wants == {"weight": False, "bias": True, "alpha": True, "epsilon_param": True}
    assert layer.lazy


def test_initialisers_are_honoured() -> None:
    layer = YatDense(
        3,
        2,
        kernel_init=lambda w: nn.init.constant_(w, -2.0),
        bias_init=lambda b: nn.init.constant_(b, 3.0),
        alpha_init=lambda a: nn.init.constant_(a, 4.0),
        positive_init=True,
    )
    assert (layer.weight == 2).all()
    assert (layer.bias == 3).all()
    assert layer.alpha.item() == 4


@every_layer
def test_layers_are_made_on_the_device_that_is_given(ours, theirs, sizes, shape) -> None:
    layer = ours(*sizes, device="meta", learnable_epsilon=True)
    assert {t.device.type for t in layer.state_dict().values()} == {"meta"}


def bank(cls: type, sizes: tuple[int, ...], out: int, **options: object) -> YatLayer:
    return cls(sizes[0], out, *sizes[2:], tie_kernel_bank=True, **options)


@layers_with_banks
def test_layers_of_a_bank_share_one_parameter(ours, theirs, sizes, shape) -> None:
    wide, narrow = bank(ours, sizes, 6), bank(ours, sizes, 4)
    other = bank(ours, sizes, 4, kernel_bank_id="other")
    assert wide.weight is narrow.weight
    assert wide.weight is not other.weight
    assert len(narrow.weight) == 6
    assert narrow.bias.shape == (4,)
    own = ours(sizes[0], 4, *sizes[2:])
    own.load_state_dict(narrow.state_dict() | {"weight": narrow.weight[:4]})
    x = torch.randn(shape)
    torch.testing.assert_close(narrow(x), own(x))
    (wide(x).sum() + narrow(x).sum()).backward()
    assert wide.weight.grad is not None


@layers_with_banks
def test_a_bank_grows_until_it_is_used(ours, theirs, sizes, shape) -> None:
    narrow = bank(ours, sizes, 4)
    before = narrow.weight.detach().clone()
    wide = bank(ours, sizes, 6)
    assert narrow.weight is wide.weight
    assert len(wide.weight) == 6
    torch.testing.assert_close(wide.weight[:4].detach(), before)
    assert len(set(wide.weight[4:].flatten().tolist())) > 1  # new rows are initialised
    narrow(torch.randn(shape))
    with pytest.raises(ValueError, match=r"capacity is frozen .*; got 8 rows for bank 'default'"):
        bank(ours, sizes, 8)
    assert len(bank(ours, sizes, 2).weight) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lazy": True}, "must have the same lazy option; got lazy=True for bank 'default'"),
        ({"kernel_bank_size": 1}, "must be at least the number of outputs; got 1 for 4 outputs"),
    ],
)
def test_a_bank_that_does_not_fit_is_refused(options, message) -> None:
    bank(YatDense, (6, 4), 4)
    with pytest.raises(ValueError, match=message):
        bank(YatDense, (6, 4), 4, **options)


def test_a_bank_that_was_converted_is_refused() -> None:
    bank(YatDense, (6, 4), 4).double()
    with pytest.raises(ValueError, match=r"got torch\.float64 on cpu .* registry is stale"):
        bank(YatDense, (6, 4), 4)


def test_layers_can_be_copied_and_saved() -> None:
    net = nn.ModuleList([bank(YatDense, (6, 4), 4), bank(YatDense, (6, 4), 2)])
    copied = copy.deepcopy(net)
    assert copied[0].weight is copied[1].weight
    assert copied[0].weight is not net[0].weight
    stored = io.BytesIO(pickle.dumps(net))
    restored = pickle.load(stored)
    torch.testing.assert_close(restored[1].weight, net[1].weight)
