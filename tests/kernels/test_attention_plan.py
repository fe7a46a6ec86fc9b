"""YatAttention's launch: choice of tile and parts, scratch memory, and refused inputs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nmn_export.errors import NmnExportError
from nmn_export.kernels.attention import launch
from nmn_export.kernels.attention.launch import forward, supports, yat_attention
from nmn_export.kernels.attention.options import Options
from nmn_export.kernels.attention.plan import MOST_KEY_PARTS, AttentionPlan, Sizes, plan_attention
from nmn_export.kernels.device import Device
from nmn_export.kernels.tile_size import Tile
from nmn_export.ops import exact_yat_attention

HOPPER = Device(capability=90, processors=132)
USUAL = Device(capability=90, processors=128)
OPTIONS = Options.of(1e-3, 0.3, False, 0.0, 0.0)


def plan(sizes: Sizes, device: Device = HOPPER, plain: bool = True) -> AttentionPlan:
    return plan_attention(sizes, torch.float16, "ieee", plain, device)


@pytest.mark.parametrize(
    ("sizes", "split"),
    [
        ((8, 12, 1, 1024, 1024, 64, 64), False),
        ((8, 12, 1, 1, 4096, 64, 64), True),
        ((1, 8, 1, 512, 512, 128, 128), False),
        ((1, 8, 1, 384, 384, 128, 128), True),
    ],
)
def test_plan_is_that_of_the_plugin(sizes: tuple[int, ...], split: bool) -> None:
    # plugins/tests/test_attention.cpp expects the same of the plugin, which assumes 128 SMs.
    assert plan(Sizes(*sizes), USUAL).split == split


def test_few_rows_take_parts_of_the_keys_that_fill_the_gpu() -> None:
    one = plan(Sizes(1, 12, 1, 1, 4096, 64, 64))
    assert (one.tile.m, one.split) == (16, True)
    assert 2 * HOPPER.processors <= one.parts * 12 < 2 * HOPPER.processors + 12
    assert plan(Sizes(1, 1, 8, 1, 1 << 20, 64, 64)).parts == MOST_KEY_PARTS
    assert plan(Sizes(1, 12, 1, 1, 100, 64, 64)).parts == 1
    assert plan(Sizes(64, 12, 1, 1, 4096, 64, 64)).parts == 1


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 8),
    heads=st.integers(1, 16),
    group=st.integers(1, 8),
    length=st.integers(1, 1 << 18),
    queries=st.sampled_from((1, 3, 100, None)),
    features=st.sampled_from((1, 16, 64, 100, 128, 256)),
    plain=st.booleans(),
)
def test_scratch_memory_grows_linearly_with_the_length(
    batch: int,
    heads: int,
    group: int,
    length: int,
    queries: int | None,
    features: int,
    plain: bool,
) -> None:
    def workspace(keys: int) -> int:
        sizes = Sizes(batch, heads, group, queries or keys, keys, features, features)
        return plan(sizes, plain=plain).workspace_bytes(sizes)

    # Norms, and the parts of the few tiles that do not fill the GPU.
    norms = 4 * batch * heads * length
    parts = 4 * 4 * HOPPER.processors * 16 * (256 + 2)
    assert workspace(length) <= norms + parts
    assert workspace(2 * length) <= 2 * workspace(length) + parts


class Allocations(TorchDispatchMode):
    """Records the bytes of the tensors that are allocated."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(
        self, function: Callable[..., Any], _types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        result = function(*arguments, **(options or {}))
        given = {t.untyped_storage().data_ptr() for t in arguments if isinstance(t, Tensor)}
        if isinstance(result, Tensor) and result.untyped_storage().data_ptr() not in given:
            self.sizes.append(result.numel() * result.element_size())
        return result


@pytest.mark.parametrize("parts", [0, 2])
def test_only_the_scratch_memory_and_the_output_are_allocated(
    parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = AttentionPlan(Tile(32, 32, 16, 4, 2), max(1, parts), split=parts > 0)
    totals = []
    for length in (64, 128, 256):
        q, k, v = (torch.randn(1, 2, length, 16).half() for _ in range(3))
        tiles = Sizes.of(q, v).tiles(chosen.tile)
        grids = {(tiles, chosen.parts): lambda **_: None}
        monkeypatch.setattr(launch, "yat_attention_forward_kernel", grids)
        with Allocations() as allocated:
            y = yat_attention(q, k, v, None, OPTIONS, is_causal=True, plan=chosen)
        counters = 4 * tiles * chosen.split
        expected = chosen.workspace_bytes(Sizes.of(q, v)) + y.numel() * y.element_size() + counters
        assert sum(allocated.sizes) == expected
        totals.append(expected)
    assert max(allocated.sizes) < 2 * length * length * q.element_size(), "less than the scores"
    assert totals == [totals[0], 2 * totals[0], 4 * totals[0]]


def test_nan_stays_and_half_precision_saturates() -> None:
    q, k = torch.ones(1, 1, 3, 16).half(), torch.ones(1, 1, 2, 16).half()
    v = torch.tensor([-60000.0, 60000.0]).half().expand(1, 1, 1, 2).mT
    q[0, 0, 1, 3] = float("nan")
    # A negative and a positive score add up to little, so the weights are large.
    mask = torch.tensor([-1.5, -0.25])
    y = yat_attention(q, k, v, mask, Options.of(16.0, 1.0 / 16, False, 1.0, 0.0))
    assert y.flatten().tolist()[::2] == [65504.0, 65504.0]
    assert y[0, 0, 1].isnan()


@pytest.mark.parametrize(
    ("queries", "keys", "features", "value_features"),
    [(0, 4, 8, 8), (3, 0, 8, 8), (3, 4, 0, 8), (3, 4, 8, 0)],
)
def test_empty(queries: int, keys: int, features: int, value_features: int) -> None:
    q, k = torch.randn(2, 2, queries, features), torch.randn(2, 2, keys, features)
    v = torch.randn(2, 2, keys, value_features)
    arguments = (q, k, v, None, 1e-3, 1.0, False, False, 0.0, 0.0)
    y = forward(*arguments)
    torch.testing.assert_close(y.double(), exact_yat_attention(*arguments), rtol=1e-5, atol=1e-6)
    assert forward(*(t[:0] for t in (q, k, v)), *arguments[3:]).shape == (0, 2, queries, v.shape[3])


GOOD = {
    "q": torch.ones(2, 4, 3, 8),
    "k": torch.ones(2, 2, 5, 8),
    "v": torch.ones(2, 2, 5, 6),
    "mask": None,
    "options": OPTIONS,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.ones(2, 4, 3, 8).double()}, "float16, bfloat16 or float32"),
        ({"q": torch.ones(2, 3, 3, 8)}, "G dividing H; got (2, 3, 3, 8) (2, 2, 5, 8)"),
        ({"q": torch.ones(2, 4, 3, 7)}, "G dividing H"),
        ({"q": torch.ones(4, 3, 8)}, "G dividing H"),
        ({"v": torch.ones(2, 2, 4, 6)}, "G dividing H"),
        ({"v": torch.ones(2, 2, 5, 257)}, "at most 256 features per head"),
        ({"mask": torch.ones(4, 5)}, "broadcasts to [B, H, Lq, Lk]; got a mask of (4, 5)"),
        ({"mask": torch.ones(1, 1, 1, 1, 5)}, "broadcasts to"),
        ({"key_lengths": torch.ones(2)}, "an int32 length of keys"),
        ({"key_lengths": torch.ones(3, dtype=torch.int32)}, "an int32 length of keys"),
        ({"precision": "tf16"}, "precision must be one of"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    with pytest.raises(NmnExportError) as error:
        yat_attention(**GOOD | change)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 0.0}, "must be positive"),
        ({"scale": 1e30}, "2^-60 <= |α| <= 2^60"),
        ({"power": -1.0}, "a finite power of at least 0"),
        ({"power": float("nan")}, "a finite power of at least 0"),
        ({"power": 1.0, "guard": -1.0}, "a finite guard of at least 0"),
    ],
)
def test_bad_numbers_and_the_eager_op_for_them(change: dict[str, float], message: str) -> None:
    numbers = {"epsilon": 1e-3, "scale": 1.0, "spherical": False, "power": 0.0, "guard": 0.0}
    q = torch.ones(1, 1, 2, 8)

    def are_supported(changed: dict[str, Any], q: Tensor = q) -> bool:
        epsilon, scale, *rest = changed.values()
        return supports(q, q, q, None, epsilon, scale, True, *rest)

    with pytest.raises(NmnExportError) as error:
        Options.of(**numbers | change)
    assert message in str(error.value)
    assert are_supported(numbers)
    assert not are_supported(numbers | change)
    assert not are_supported(numbers, torch.ones(1, 1, 2, 257))
