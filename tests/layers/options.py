"""Layers with random options, and checks that hold for all of them."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nmn_export.layers import YatConv, YatConvTranspose, YatDense, YatLayer

Layer = TypeVar("Layer", bound=YatLayer)

# The same examples in every run, because the comparison includes rounding.
_SETTINGS = settings(max_examples=60, deadline=None, derandomize=True, database=None)

_SHARED: dict[str, st.SearchStrategy[Any]] = {
    "bias": st.booleans(),
    "constant_bias": st.none() | st.floats(-2, 2, width=32),
    "softplus_bias": st.booleans(),
    "scalar_bias": st.booleans(),
    "constant_alpha": st.none() | st.booleans() | st.floats(-3, 3, width=32),
    "epsilon": st.sampled_from([1e-5, 0.007, 2.0]),
    "learnable_epsilon": st.booleans(),
    "weight_normalized": st.booleans(),
    "dtype": st.sampled_from([None, torch.float32, torch.float64, torch.float16, torch.bfloat16]),
}

_ALPHA = st.sampled_from([True, False, "geometric"])

_SPATIAL: dict[str, st.SearchStrategy[Any]] = {
    "use_alpha": _ALPHA,
    "kernel_size": st.integers(1, 3),
    "dilation": st.integers(1, 2),
    "groups": st.sampled_from([1, 2]),
}

_OWN: dict[type[YatLayer], dict[str, st.SearchStrategy[Any]]] = {
    YatDense: {"alpha": _ALPHA, "spherical": st.booleans()},
    YatConv: _SPATIAL
    | {
        "padding": st.integers(0, 1) | st.sampled_from(["valid", "same"]),
        "padding_mode": st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    },
    YatConvTranspose: _SPATIAL
    | {
        "stride": st.just(3) | st.tuples(st.integers(2, 4), st.just(2)),
        "padding": st.integers(0, 2),
        "output_padding": st.tuples(st.integers(0, 1), st.integers(0, 1)),
    },
}


def drawn(kind: type[YatLayer]) -> Callable[[Any], Any]:
    """Parametrize a test with random options of one kind of layer."""
    own = next(options for base, options in _OWN.items() if issubclass(kind, base))

    def decorate(test: Any) -> Any:
        return _SETTINGS(given(options=st.fixed_dictionaries(_SHARED | own))(test))

    return decorate


def shuffle(layer: Layer) -> Layer:
    """Give parameters values that differ from all initial ones, so that each parameter matters."""
    random = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            noise = torch.randn(parameter.shape, generator=random).to(parameter.dtype)
            if name == "epsilon_param":
                parameter.add_(0.1 * noise.abs())
            elif name == "weight":
                parameter.copy_(noise)
            else:
                parameter.copy_(0.5 + 0.3 * noise)
    return layer


def state_keys(layer: nn.Module) -> set[str]:
    """Return the names in a layer's state dict."""
    return set(layer.state_dict())


def assert_folds_to_itself(layer: YatLayer, x: Tensor) -> None:
    """Fail unless a layer in eval mode computes what its fold does, in the same dtype."""
    folded = layer.eval().fold()
    for dtype in (torch.float32, torch.float16):
        expected, y = layer(x.to(dtype)), folded(x.to(dtype))
        assert y.dtype == expected.dtype
        step = torch.finfo(y.dtype).eps
        torch.testing.assert_close(y, expected, rtol=8 * step, atol=8 * step)
    assert not any(p.requires_grad for p in folded.parameters())
