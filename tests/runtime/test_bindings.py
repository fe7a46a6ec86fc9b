import dataclasses

import ml_dtypes
import pytest
import torch

from nmn_export import NmnExportError
from nmn_export.runtime import bindings
from nmn_export.runtime.bindings import Bindings
from tests.runtime.engine_double import ALIGNMENT, PROFILE, Engine, Gpu, X, Y

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cpu_alignment(monkeypatch):
    monkeypatch.setattr(bindings, "_ALIGNMENT", ALIGNMENT)


def ran(engine: Engine, x: torch.Tensor) -> torch.Tensor:
    """Check, bind and run, on the CPU."""
    Gpu.now = Gpu()
    bound = Bindings(engine)
    profile, inputs = bound.fit({"x": x}, CPU)
    context = engine.create_execution_context()
    context.set_optimization_profile_async(profile, 0)
    outputs = bound.bind(context, inputs)
    context.execute_async_v3("stream")
    return outputs["y"]


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(3, 4),
        torch.randn(4, 3).T,
        torch.randn(6, 4)[::2],
        torch.randn(3, 1).expand(3, 4),
        torch.randn(13)[1:].view(3, 4),
    ],
    ids=["plain", "transposed", "strided", "expanded", "at an odd address"],
)
def test_tensors_are_read_as_they_are_meant(x):
    assert torch.equal(ran(Engine(), x), 2 * x)


def test_a_tensor_that_can_be_read_is_not_copied():
    x = torch.randn(3, 4)
    _, inputs = Bindings(Engine()).fit({"x": x}, CPU)
    assert inputs["x"].data_ptr() == x.data_ptr()


def test_outputs_have_the_shape_of_this_run():
    engine = Engine()
    assert ran(engine, torch.ones(8, 4)).shape == (8, 4)
    assert ran(engine, torch.ones(1, 4)).shape == (1, 4)


def test_the_first_profile_that_allows_a_shape_is_taken():
    wide = {"x": ((16, 4), (32, 4), (64, 4))}
    engine = Engine(profiles=(PROFILE, wide))
    assert torch.equal(ran(engine, torch.ones(20, 4)), torch.full((20, 4), 2.0))
    assert [context.profile for context in engine.contexts] == [1]


WRONG = {
    "no input": ({}, "The engine's inputs are x; got none"),
    "another name": ({"z": torch.ones(2, 4)}, "The engine's inputs are x; got z"),
    "one too many": ({"x": torch.ones(2, 4), "z": torch.ones(1)}, "got x, z"),
    "another dtype": ({"x": torch.ones(2, 4).half()}, "has dtype float32; got float16"),
    "another rank": ({"x": torch.ones(2, 4, 1)}, "1x4 to 8x4, tuned for 2x4; got 2x4x1"),
    "a fixed size": ({"x": torch.ones(2, 5)}, "1x4 to 8x4, tuned for 2x4; got 2x5"),
    "above the profile": ({"x": torch.ones(9, 4)}, "got 9x4. Reshape it, or build with other"),
    "below the profile": ({"x": torch.ones(0, 4)}, "got 0x4"),
    "another device": ({"x": torch.ones(2, 4, device="meta")}, "lies on cpu; got meta"),
}


@pytest.mark.parametrize(("tensors", "message"), WRONG.values(), ids=WRONG)
def test_tensors_that_do_not_fit_are_reported_in_one_line(tensors, message):
    with pytest.raises(NmnExportError) as caught:
        Bindings(Engine()).fit(tensors, CPU)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_inputs_that_fit_different_profiles_are_reported():
    both = (dataclasses.replace(X, name="a"), dataclasses.replace(X, name="b"), Y)
    small, large = ((1, 4), (1, 4), (2, 4)), ((3, 4), (3, 4), (8, 4))
    engine = Engine(*both, profiles=({"a": small, "b": small}, {"a": large, "b": large}))
    tensors = {"a": torch.ones(1, 4), "b": torch.ones(8, 4)}
    with pytest.raises(NmnExportError, match=r"'b' .* 1x4 to 2x4.* or 3x4 to 8x4.*; got 8x4"):
        Bindings(engine).fit(tensors, CPU)


def test_shapes_that_depend_on_values_are_refused():
    engine = Engine(X, dataclasses.replace(Y, shape=(-2, 4)))
    with pytest.raises(NmnExportError, match=r"must follow from .*; got 'y' of shape \?x4"):
        ran(engine, torch.ones(2, 4))


def test_a_refusal_of_tensorrt_is_reported_in_one_line():
    engine = Engine()
    context = engine.create_execution_context()
    context.set_tensor_address = lambda name, address: name != "y"
    with pytest.raises(NmnExportError, match=r"must accept the tensors .* got output 'y'"):
        Bindings(engine).bind(context, {"x": torch.ones(2, 4)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"location": "HOST"}, "'x' in FLOAT on the host"),
        ({"dtype": "FP4"}, "'x' in FP4"),
        ({"vectorized": 1}, "'x' in FLOAT on the device"),
    ],
    ids=str,
)
def test_unsupported_tensor_formats_are_refused(change, message):
    with pytest.raises(NmnExportError, match="must be plain arrays on the GPU") as caught:
        Bindings(Engine(dataclasses.replace(X, **change), Y))
    assert message in str(caught.value)


def test_inputs_are_described_by_their_bounds():
    engine = Engine(dataclasses.replace(X, dtype="BF16"), Y)
    (described,) = Bindings(engine).describe_inputs()
    assert (described.name, described.shape, described.example) == ("x", ("1..8", 4), (2, 4))
    assert described.dtype == ml_dtypes.bfloat16


def test_an_engine_of_one_shape_allows_that_only():
    engine = Engine(dataclasses.replace(X, shape=(2, 4)), Y)
    (described,) = Bindings(engine).describe_inputs()
    assert described.shape == (2, 4)
    with pytest.raises(NmnExportError, match="has shapes 2x4; got 1x4"):
        Bindings(engine).fit({"x": torch.ones(1, 4)}, CPU)
