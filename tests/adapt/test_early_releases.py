"""Releases up to 0.2.6, which had another formula, and 0.2.7, the first with the present one."""

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nmn_export import check, export
from nmn_export.adapt import adapt, legacy
from nmn_export.errors import NmnExportError
from nmn_export.layers import (
    YatConv1d,
    YatConv2d,
    YatConv3d,
    YatConvTranspose1d,
    YatConvTranspose2d,
    YatConvTranspose3d,
    YatDense,
)
from tests.adapt.agreement import assert_same, assert_same_tensors
from tests.adapt.conftest import at_least

drawn = settings(max_examples=30, deadline=None, derandomize=True, database=None)

OURS = {
    "YatNMN": (legacy.LegacyYatDense, YatDense),
    "YatConv1d": (legacy.LegacyYatConv1d, YatConv1d),
    "YatConv2d": (legacy.LegacyYatConv2d, YatConv2d),
    "YatConv3d": (legacy.LegacyYatConv3d, YatConv3d),
    "YatConvTranspose1d": (legacy.LegacyYatConvTranspose1d, YatConvTranspose1d),
    "YatConvTranspose2d": (legacy.LegacyYatConvTranspose2d, YatConvTranspose2d),
    "YatConvTranspose3d": (legacy.LegacyYatConvTranspose3d, YatConvTranspose3d),
}
"""Our classes by the name of theirs, for releases up to 0.2.6 and for 0.2.7."""


def class_of(name: str) -> type[nn.Module] | None:
    """Return a class of the imported release, or `None` if it cannot be constructed there."""
    for home in ("nmn.torch.nmn", "nmn.torch.layers", "nmn.torch.conv"):
        try:
            cls: type[nn.Module] = getattr(importlib.import_module(home), name)
            cls(2, 3, 1) if "Conv" in name else cls(2, 3)
        except (ImportError, AttributeError, TypeError):
            continue
        return cls
    return None


def assert_adapts(theirs: nn.Module, x: Tensor, release: str) -> None:
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.uniform_(0.1, 1)
    theirs.eval()
    ours = adapt(theirs)
    early, present = OURS[type(theirs).__name__]
    assert type(ours) is (present if at_least(release, "0.2.7") else early)
    assert_same_tensors(ours, theirs)
    with torch.no_grad():
        assert_same(ours(x), theirs(x))
        assert_same(ours.fold()(x), theirs(x), tolerance=2e-6)


@given(data=st.data())
@drawn
def test_dense(early_release: str, data: st.DataObject) -> None:
    cls = class_of("YatNMN")
    options = data.draw(
        st.fixed_dictionaries(
            {
                "bias": st.booleans(),
                "alpha": st.booleans(),
                "epsilon": st.sampled_from([1e-4, 0.1, 2.0]),
                "dtype": st.sampled_from([torch.float32, torch.float64]),
            }
        )
    )
    if at_least(early_release, "0.2.7"):
        options["param_dtype"] = torch.float64
    torch.manual_seed(data.draw(st.integers(0, 2**16)))
    features, outputs = data.draw(st.integers(8, 40)), data.draw(st.integers(1, 6))
    batch = data.draw(st.sampled_from([(1,), (3,), (2, 3)]))
    assert_adapts(
        cls(features, outputs, **options), 2 + torch.rand(*batch, features), early_release
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
@given(data=st.data())
@drawn
def test_conv(early_release: str, rank: int, data: st.DataObject) -> None:
    cls = class_of(f"YatConv{rank}d")
    if cls is None:
        assert (early_release, rank) in {("0.1.17", 1), ("0.1.17", 3)}
        return
    groups = data.draw(st.integers(1, 2))
    channels, outputs = 2 * groups, groups * data.draw(st.integers(1, 3))
    options = data.draw(
        st.fixed_dictionaries(
            {
                "stride": st.integers(1, 2),
                "padding": st.integers(0, 1) | st.just("valid"),
                "dilation": st.integers(1, 2),
                "bias": st.booleans(),
                "padding_mode": st.sampled_from(["zeros", "circular"]),
                "use_alpha": st.booleans(),
                "use_dropconnect": st.booleans(),
                "epsilon": st.sampled_from([1e-5, 0.1, 2.0]),
            }
        )
    )
    mask = torch.rand(outputs, 2, *[2] * rank) > 0.2 if data.draw(st.booleans()) else None
    torch.manual_seed(data.draw(st.integers(0, 2**16)))
    theirs = cls(channels, outputs, 2, groups=groups, mask=mask, **options)
    assert_adapts(theirs, 2 + torch.rand(2, channels, *(6, 5, 4)[:rank]), early_release)


def small_network() -> nn.Module:
    """Return a network of a convolution and a dense layer, with parameters of both signs."""
    conv, dense = class_of("YatConv2d"), class_of("YatNMN")
    torch.manual_seed(0)
    model = nn.Sequential(conv(3, 4, 3, padding=1), nn.Flatten(), dense(4 * 36, 5)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-1, 1)
    return model


@pytest.mark.parametrize("dtype", [None, "float16"])
def test_a_network_is_exported_with_one_op_a_layer(
    early_release: str, dtype: str | None, tmp_path: Path
) -> None:
    model, path = small_network(), tmp_path / "m.onnx"
    if dtype is not None:
        model[2].dtype = None  # it would convert its input to float32
    result = export(
        model, torch.randn(2, 3, 6, 6), path, dynamic_shapes={"input": {0: "batch"}}, dtype=dtype
    )
    assert result.ops == {"YatConv": 1, "YatDense": 1}
    assert result.parity, result.parity_note
    comparisons = check(path, model)
    assert {c.subject for c in comparisons} == {"model", "0", "2"}
    assert all(c.passed for c in comparisons)


def test_hooks_run_after_bias_and_alpha(early_release: str) -> None:
    model, x = small_network(), torch.randn(2, 3, 6, 6)
    model[2].register_forward_hook(lambda module, inputs, output: output.square())
    ours = adapt(model)
    torch.testing.assert_close(ours(x), model(x))
    torch.testing.assert_close(ours[2].fold()(ours[:2](x)).square(), model(x))


def test_gradients_reach_the_shared_parameters(early_release: str) -> None:
    model = small_network()
    adapt(model)(torch.randn(2, 3, 6, 6)).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("rank", [1, 2, 3])
@given(data=st.data())
@drawn
def test_transposed_convolution(early_release: str, rank: int, data: st.DataObject) -> None:
    cls = class_of(f"YatConvTranspose{rank}d")
    if cls is None:
        assert early_release == "0.1.17"
        return
    options = data.draw(
        st.fixed_dictionaries(
            {
                "stride": st.integers(1, 3),
                "padding": st.integers(0, 1),
                "bias": st.booleans(),
                "use_alpha": st.booleans(),
                "epsilon": st.sampled_from([1e-5, 0.1, 2.0]),
            }
        )
    )
    torch.manual_seed(data.draw(st.integers(0, 2**16)))
    theirs = cls(2, data.draw(st.integers(1, 3)), 2, **options)
    assert_adapts(theirs, 2 + torch.rand(2, 2, *(5, 4, 3)[:rank]), early_release)


def test_a_layer_without_the_attributes_of_any_release_is_refused() -> None:
    class YatConv2d(nn.Conv2d):
        __module__ = "nmn.torch.layers"

    with pytest.raises(NmnExportError, match=r"got YatConv2d at '0', without \w+\. Build it"):
        adapt(nn.Sequential(YatConv2d(2, 3, 3)))


def test_defaults_of_early_releases_are_read_from_the_layer(early_release: str) -> None:
    cls: Any = class_of("YatNMN")
    expected = inspect.signature(cls).parameters["epsilon"].default
    assert adapt(cls(4, 3)).epsilon == expected == (1e-5 if early_release == "0.2.7" else 1e-4)
