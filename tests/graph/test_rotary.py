import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from nmn_export import Exported, export
from nmn_export.graph.fold import fold
from nmn_export.layers import RotaryStep, RotaryYatAttention
from nmn_export.runtime.onnx_runtime import OnnxRuntimeRunner

EMBED, HEADS = 16, 2

KINDS = {
    "slay": {"num_anchor_features": 4, "num_prf_features": 3, "use_bias": True},
    "maclaurin": {"performer_num_features": 24, "performer_nmax": 6, "epsilon": 0.5},
    "radial": {
        "performer_sketch_m": 4,
        "performer_num_radial": 2,
        "performer_radial_dim": 4,
        "epsilon": 0.5,
    },
}

EXACT = {"l1": {"learnable_epsilon": True, "epsilon": 0.1, "normalize_qk": True}}


def layer_of(kind: str, **options: object) -> RotaryYatAttention:
    torch.manual_seed(0)
    if kind in EXACT:
        own = {"normalization": kind} | EXACT[kind]
    else:
        own = {"use_performer": True, "performer_kind": kind, "seed": 1} | KINDS[kind]
    return RotaryYatAttention(EMBED, HEADS, 300, **own, **options).eval()


def tokens(batch: int, length: int) -> Tensor:
    return torch.randn(batch, length, EMBED, generator=torch.Generator().manual_seed(length))


Files = Callable[..., Exported]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Export a layer with an example of a few tokens, each kind once for all tests."""

    @functools.cache
    def written(kind: str, causal: bool, masked: bool, dtype: str | None = None) -> Exported:
        inputs, axes = {"x": tokens(2, 5)}, {"x": {0: "batch", 1: "length"}}
        if masked:
            inputs["mask"] = torch.ones(2, 1, 1, 5, dtype=torch.bool)
            axes["mask"] = {0: "batch", 3: "length"}
        path = tmp_path_factory.mktemp("rotary") / "rotary.onnx"
        layer = layer_of(kind, causal=causal)
        return export(layer, inputs, path, dynamic_shapes=axes, dtype=dtype)

    return written


def assert_near(y: np.ndarray, eager: Tensor, truth: Tensor) -> None:
    """Fail unless an output is as near to float64 as eager PyTorch, or to 16 units of rounding.

    Denominators of features of both signs come close to zero, where both have few digits.
    """
    assert y.shape == truth.shape
    if not y.size:
        return
    error = (torch.from_numpy(y).double() - truth).abs().max()
    unit = torch.finfo(eager.dtype).eps * truth.abs().max().clamp_min(1e-3)
    assert error <= max(16 * unit, 16 * (eager.double() - truth).abs().max())


@pytest.mark.parametrize(
    ("kind", "causal", "masked"),
    [
        ("slay", True, False),
        ("slay", False, True),
        ("maclaurin", True, True),
        ("radial", False, False),
        ("l1", True, False),
    ],
)
@torch.no_grad()
def test_a_layer_is_one_file_for_every_batch_and_length(
    kind: str, causal: bool, masked: bool, files: Files
) -> None:
    exported = files(kind, causal, masked)
    assert not exported.parity_note
    assert exported.ops == ({"YatAttention": 1} if kind in EXACT else {})
    layer = layer_of(kind, causal=causal)
    runner, truth = OnnxRuntimeRunner(exported.path), fold(layer, torch.float64)
    for batch, length in ((2, 5), (1, 1), (3, 130), (0, 4)):
        x, inputs, mask = tokens(batch, length), {}, None
        if masked:
            mask = torch.rand(batch, 1, 1, length, generator=torch.Generator().manual_seed(1)) < 0.6
            mask[:1] = False
            inputs["mask"] = mask.numpy()
        (y,) = runner.run({"x": x.numpy(), **inputs}).values()
        assert_near(y, layer(x, mask), truth(x.double(), mask))
        if masked:
            assert (y[:1] == 0).all()


@torch.no_grad()
def test_a_layer_in_float16_is_near_float64(files: Files) -> None:
    layer = fold(layer_of("slay", causal=True), torch.float16)
    x = tokens(2, 70).half()
    (y,) = (
        OnnxRuntimeRunner(files("slay", True, False, "float16").path).run({"x": x.numpy()}).values()
    )
    assert y.dtype == np.float16
    assert_near(y, layer(x), fold(layer, torch.float64)(x.double()))


def test_projections_are_in_the_file_and_rows_without_effect_are_not(files: Files) -> None:
    layer = layer_of("maclaurin")
    model = onnx.load(files("maclaurin", True, True).path)
    rows = [
        onnx.numpy_helper.to_array(t)
        for t in model.graph.initializer
        if len(t.dims) == 2 and EMBED // HEADS in t.dims
    ]
    signs = [array for array in rows if set(np.abs(array).ravel()) == {1.0}]
    assert sum(array.size for array in signs) == EMBED // HEADS * int(
        layer.performer.features.degrees.sum()
    )


def test_a_guard_too_small_for_the_optimizer_is_kept(tmp_path: Path) -> None:
    layer = layer_of("slay", use_out_proj=False)
    layer.epsilon = 1e-12  # its square must not underflow
    path = tmp_path / "m.onnx"
    export(layer, tokens(1, 3), path)
    zeros = np.zeros((1, 3, EMBED), np.float32)
    (y,) = OnnxRuntimeRunner(path).run({"x": zeros}).values()
    assert np.isfinite(y).all()


@torch.no_grad()
def test_a_step_in_a_file_of_its_own_gives_what_the_whole_sequence_gives(tmp_path: Path) -> None:
    layer = layer_of("slay", causal=True)
    state = layer.initial_state(2)
    names = ("x", "kv", "k_sum", "position")
    axes = {name: {0: "batch"} for name in names}
    path = tmp_path / "step.onnx"
    exported = export(RotaryStep(layer), (tokens(2, 1)[:, 0], *state), path, dynamic_shapes=axes)
    assert not exported.parity_note
    graph = onnx.load(path).graph
    assert [value.name for value in graph.input] == list(names)
    shapes = [
        [d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim] for v in graph.output
    ]
    assert shapes == [["batch", *t.shape[1:]] for t in (tokens(2, 1)[:, 0], *state)]
    x = tokens(3, 100)
    runner = OnnxRuntimeRunner(path)
    values = dict(zip(names[1:], (t.numpy() for t in layer.initial_state(3)), strict=True))
    outputs = []
    for i in range(100):
        y, *after = runner.run({"x": x[:, i].numpy(), **values}).values()
        values = dict(zip(names[1:], after, strict=True))
        outputs.append(y)
    truth = fold(layer, torch.float64)(x.double())
    assert_near(np.stack(outputs, 1), layer(x), truth)


@pytest.mark.parametrize("kind", ["slay", "l1"])
def test_a_later_token_does_not_change_one_bit(kind: str, files: Files) -> None:
    runner, x = OnnxRuntimeRunner(files(kind, True, False).path), tokens(1, 150).numpy()
    for first in (1, 63, 64, 100, 149):
        (before,) = runner.run({"x": x}).values()
        other = x.copy()
        other[:, first:] = 1e6 * x[:, : 150 - first]
        (after,) = runner.run({"x": other}).values()
        assert np.array_equal(before[:, :first], after[:, :first]), first
        assert not np.array_equal(before[:, first:], after[:, first:])


def test_a_position_offset_may_be_an_input(tmp_path: Path) -> None:
    class Continued(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = layer_of("slay", causal=True)

        def forward(self, x: Tensor, first: Tensor) -> Tensor:
            return self.attention(x, position_offset=first)

    net, path = Continued().eval(), tmp_path / "m.onnx"
    inputs = {"x": tokens(2, 5), "first": torch.tensor([3])}
    export(net, inputs, path, dynamic_shapes={"x": {0: "batch", 1: "length"}})
    x = tokens(1, 20)
    (y,) = OnnxRuntimeRunner(path).run({"x": x.numpy(), "first": np.array([7])}).values()
    expected = net.attention(x, position_offset=7).detach()
    torch.testing.assert_close(torch.from_numpy(y), expected, rtol=1e-4, atol=1e-6)
