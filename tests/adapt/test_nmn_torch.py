"""All supported layers of `nmn.torch`, with random options."""

import inspect
import itertools
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune

from nmn_export.adapt import adapt
from nmn_export.errors import NmnExportError
from nmn_export.layers import YatConv1d, YatConv2d, YatConv3d, YatDense
from tests.adapt.agreement import assert_same, assert_same_tensors
from tests.adapt.conftest import at_least

# The same examples in every run, because the comparison includes rounding.
drawn = settings(max_examples=60, deadline=None, derandomize=True, database=None)

# Kernel banks exist for the life of the process, so each test uses a new name.
bank_ids = (f"drawn-{i}" for i in itertools.count())


def shared_options() -> dict[str, st.SearchStrategy[Any]]:
    """Options that dense layers and convolutions share."""
    return {
        "bias": st.booleans(),
        "constant_alpha": st.none() | st.booleans() | st.floats(-4, 4, width=32),
        "epsilon": st.sampled_from([1e-5, 0.007, 0.1, 2.0]),
        "weight_normalized": st.booleans(),
        "tie_kernel_bank": st.booleans(),
        "dtype": st.sampled_from([None, None, torch.float32, torch.float64]),
        "param_dtype": st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
        "constant_bias": st.none() | st.booleans() | st.floats(0, 4, width=32),
        "softplus_bias": st.booleans(),
        "scalar_bias": st.booleans(),
        "learnable_epsilon": st.booleans(),
    }


def draw_options(
    data: st.DataObject, cls: type, own: dict[str, st.SearchStrategy[Any]]
) -> dict[str, Any]:
    """Draw options of a class that its release has."""
    options = data.draw(st.fixed_dictionaries(shared_options() | own))
    options["kernel_bank_id"] = next(bank_ids)
    known = inspect.signature(cls).parameters
    return {name: value for name, value in options.items() if name in known}


@torch.no_grad()
def trained(layer: nn.Module) -> nn.Module:
    """Move parameters from their initial values to values for which nothing cancels."""
    for name, parameter in layer.named_parameters():
        if name != "epsilon_param":
            parameter.uniform_(0.1, 1)
    return layer.eval()


def far_from_weights(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Draw inputs that are far from all weights, so that float32 is accurate."""
    return 2 + torch.rand(*shape, dtype=dtype)


def assert_equal_in_ours(theirs: nn.Module, ours: nn.Module, x: torch.Tensor) -> None:
    assert_same_tensors(ours, theirs)
    assert not ours.training
    with torch.no_grad():
        assert_same(ours(x), theirs(x))
        assert_same(ours(x, deterministic=True), theirs(x))


@given(data=st.data())
@drawn
def test_dense(nmn_torch: ModuleType, data: st.DataObject) -> None:
    outputs = data.draw(st.integers(1, 6))
    own = {
        "alpha": st.booleans(),
        "spherical": st.booleans(),
        "positive_init": st.booleans(),
        "kernel_bank_size": st.sampled_from([None, outputs, outputs + 3]),
        "lazy": st.booleans(),
        "freeze_kernel": st.booleans(),
    }
    torch.manual_seed(data.draw(st.integers(0, 2**16)))
    features = data.draw(st.integers(8, 40))
    cls = nmn_torch.YatNMN
    theirs = cls(features, outputs, **draw_options(data, cls, own))
    ours = adapt(trained(theirs))
    assert type(ours) is YatDense
    batch = data.draw(st.sampled_from([(), (1,), (3,), (2, 3)]))
    x_dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    x = far_from_weights(*batch, features, dtype=x_dtype)
    if theirs.spherical:
        x[..., ::4] *= -1  # far in angle, without cancelling ⟨x, w⟩
    assert_equal_in_ours(theirs, ours, x)


def conv_options(data: st.DataObject, rank: int, cls: type, release: str) -> dict[str, Any]:
    """Draw options of a convolution that do not contradict each other."""

    def per_axis(low: int, high: int) -> st.SearchStrategy[Any]:
        number = st.integers(low, high)
        return number | st.tuples(*[number] * rank)

    groups, outputs = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    stride = data.draw(per_axis(1, 3))
    paddings = [per_axis(0, 2), st.just("valid")]
    if stride in (1, (1,) * rank):
        paddings.append(st.just("same"))
    own = {
        "in_channels": st.integers(1, 4).map(lambda n: n * groups),
        # Two ways to compute a sum differ more if it has more terms.
        "kernel_size": per_axis(1, 2 if rank == 3 else 3),
        "dilation": per_axis(1, 2),
        "padding": st.one_of(paddings),
        "padding_mode": st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]),
        "use_alpha": st.booleans(),
        "use_dropconnect": st.booleans(),
        "drop_rate": st.sampled_from([0.0, 0.3]),
    }
    if at_least(release, "0.3.3"):  # before, tied layers fail if the bank is larger than they are
        own["kernel_bank_size"] = st.sampled_from([None, (outputs + 2) * groups])
    chosen = draw_options(data, cls, own)
    return chosen | {"groups": groups, "out_channels": outputs * groups, "stride": stride}


def draw_mask(data: st.DataObject, shape: torch.Size) -> torch.Tensor | None:
    """Draw no mask, or one that leaves part of every filter."""
    kind = data.draw(st.sampled_from(["none", "bool", "float", "broadcast"]))
    if kind == "none":
        return None
    if kind == "broadcast":
        return torch.tensor(data.draw(st.floats(0.25, 1, width=32)))
    mask = torch.rand(shape)
    mask[:, 0].clamp_min_(0.5)
    return mask > 0.4 if kind == "bool" else mask


@pytest.mark.parametrize("rank", [1, 2, 3])
@given(data=st.data())
@drawn
def test_conv(nmn_torch: ModuleType, release: str, rank: int, data: st.DataObject) -> None:
    build = getattr(nmn_torch, f"YatConv{rank}D")
    options = conv_options(data, rank, build, release)
    torch.manual_seed(data.draw(st.integers(0, 2**16)))
    filters = build(**options | {"tie_kernel_bank": False}).weight.shape
    theirs = build(**options, mask=draw_mask(data, filters))
    ours = adapt(trained(theirs))
    assert type(ours) is (YatConv1d, YatConv2d, YatConv3d)[rank - 1]
    x_dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    size = (7, 6, 5)[:rank]
    assert_equal_in_ours(
        theirs, ours, far_from_weights(2, options["in_channels"], *size, dtype=x_dtype)
    )


def half_tolerance(release: str, dtype: torch.dtype) -> float:
    """Return the tolerance for outputs in half precision.

    Before 0.3.3, nmn computes in half precision what our layers compute in float32.
    """
    tolerance = 2**-8 if at_least(release, "0.3.3") else 0.1
    return tolerance * (8 if dtype == torch.bfloat16 else 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(nmn_torch: ModuleType, release: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tolerance = half_tolerance(release, dtype)
    dense = trained(nmn_torch.YatNMN(16, 5, dtype=dtype))
    conv = trained(nmn_torch.YatConv2D(3, 4, 3, dtype=dtype, param_dtype=torch.float32))
    with torch.no_grad():
        for theirs, shape in ((dense, (4, 16)), (conv, (2, 3, 6, 6))):
            x = far_from_weights(*shape)
            assert_same(adapt(theirs)(x), theirs(x), tolerance)


def test_constant_bias_keeps_its_digits_in_a_halved_layer(
    nmn_torch: ModuleType, release: str
) -> None:
    torch.manual_seed(0)
    options = {"constant_bias": 0.1} if at_least(release, "0.2.27") else {}
    theirs = trained(nmn_torch.YatNMN(16, 5, **options).half())
    assert_equal_in_ours(theirs, adapt(theirs), far_from_weights(3, 16))


def test_integers_are_cast_to_the_layers_own_dtype(nmn_torch: ModuleType) -> None:
    theirs = trained(nmn_torch.YatNMN(16, 5, dtype=torch.float32))
    assert_equal_in_ours(theirs, adapt(theirs), torch.randint(2, 9, (3, 16)))


def test_normalised_filter_of_zeros(nmn_torch: ModuleType) -> None:
    mask = torch.ones(3, 2, 3, 3)
    mask[1] = 0
    conv = trained(nmn_torch.YatConv2D(2, 3, 3, weight_normalized=True, mask=mask))
    with pytest.raises(NmnExportError, match=r"YatConv2D at '0', whose filters \[1\] are zero"):
        adapt(nn.Sequential(conv))
    with torch.no_grad():
        conv.bias[1] = 0
    assert_equal_in_ours(conv, adapt(conv), far_from_weights(1, 2, 5, 5))


def test_subclass_that_computes_the_same(nmn_torch: ModuleType) -> None:
    class Head(nmn_torch.YatNMN):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__(16, 5)

        def extra_repr(self) -> str:
            return "head"

    theirs = trained(Head())
    assert_equal_in_ours(theirs, adapt(theirs), far_from_weights(3, 16))


def refusal(model: nn.Module) -> str:
    with pytest.raises(NmnExportError) as caught:
        adapt(model)
    return str(caught.value)


def test_unknown_layer_is_refused_and_unknown_container_searched(nmn_torch: ModuleType) -> None:
    class Holder(nn.Module):
        __module__ = "nmn.torch.blocks"

        def __init__(self) -> None:
            super().__init__()
            self.inner = nmn_torch.YatNMN(16, 5)

    class Owner(Holder):
        __module__ = "nmn.torch.blocks"

        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(1))

    assert type(adapt(Holder()).inner) is YatDense
    assert "got Owner, the model itself. Replace it by one of these." in refusal(Owner())


@pytest.mark.parametrize("name", ["weight", "bias"])
@pytest.mark.parametrize("reparametrize", [parametrizations.weight_norm, prune.random_unstructured])
def test_computed_parameter_is_refused(
    nmn_torch: ModuleType, reparametrize: Any, name: str
) -> None:
    options = {"amount": 0.5} if reparametrize is prune.random_unstructured else {}
    message = refusal(reparametrize(nmn_torch.YatNMN(16, 5), name, **options))
    assert f"adapt needs the {name} of a layer to be a plain parameter" in message
    assert "got YatNMN, the model itself, where a parametrization, pruning or" in message


def test_changed_computation_is_refused(nmn_torch: ModuleType) -> None:
    class Doubled(nmn_torch.YatNMN):  # type: ignore[name-defined, misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = 2 * super().forward(x)
            return y

    assert "got YatNMN at 'fc', a Doubled with a forward of its own" in refusal(
        nn.ModuleDict({"fc": Doubled(16, 5)})
    )
    patched = nmn_torch.YatConv1D(2, 3, 3)
    patched.forward = lambda x: x
    assert "a YatConv1D with a forward of its own. Put a plain YatConv1D" in refusal(patched)


def test_additions_are_refused(nmn_torch: ModuleType) -> None:
    layer = nmn_torch.YatNMN(16, 5)
    layer.gate = nn.Linear(16, 5)
    layer.register_buffer("scale", torch.ones(1))
    assert "got YatNMN, the model itself, which also has scale, gate. Use a plain" in refusal(layer)


def test_option_that_ours_lack_is_refused(nmn_torch: ModuleType) -> None:
    layer = nmn_torch.YatConv1D(2, 3, 3, use_dropconnect=True, drop_rate=1.0)
    message = refusal(layer)
    assert "got YatConv1D, the model itself. drop_rate must be in [0, 1); got 1.0." in message


def test_bank_sized_bias_is_refused(nmn_torch: ModuleType) -> None:
    layer = nmn_torch.YatConv1D(2, 3, 3)
    layer.bias = nn.Parameter(torch.zeros(6))
    assert "YatConv1D, the model itself, with 6 for 3 outputs. Build it with" in refusal(layer)
