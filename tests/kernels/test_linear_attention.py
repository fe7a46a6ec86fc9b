import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.kernels.ahead_of_time.build import ARCHITECTURES
from nmn_export.kernels.ahead_of_time.variants import variants
from nmn_export.kernels.linear_attention import launch
from nmn_export.kernels.linear_attention.launch import forward
from nmn_export.kernels.weights import ALIGNMENT
from nmn_export.ops.linear_attention import CHUNK
from tests.cases import LINEAR_ATTENTION_CASES, LinearAttentionCase, with_dtypes
from tests.cases.linear_attention import assert_near_exact
from tests.kernels import host

CASES = [
    pytest.param(*case.values, segments, id=f"{case.id}-{segments}")
    for case, segments in zip(
        with_dtypes(LINEAR_ATTENTION_CASES, torch.float16, torch.bfloat16),
        itertools.cycle((None, 1, 3)),
    )
]


@pytest.mark.parametrize(("case", "dtype", "segments"), CASES)
def test_near_exact(case: LinearAttentionCase, dtype: torch.dtype, segments: int | None) -> None:
    arguments = case.arguments(dtype)
    assert_near_exact(forward(*arguments, segments), arguments)


@settings(max_examples=6, deadline=None, derandomize=True, database=None)
@given(
    length=st.integers(2, 3 * CHUNK),
    later=st.floats(0, 1),
    segments=st.sampled_from([1, 3]),
    size=st.sampled_from([1.0, 1e9]),
)
def test_a_later_token_does_not_change_one_bit(
    length: int, later: float, segments: int, size: float
) -> None:
    torch.manual_seed(length)
    first = max(1, min(length - 1, round(later * length)))
    tensors = [torch.randn(1, length, 5), torch.randn(1, length, 5), torch.randn(1, length, 3)]
    before = forward(*tensors, 1e-5, True, segments)
    for tensor in tensors:
        tensor[:, first:] = size * torch.randn_like(tensor[:, first:])
    after = forward(*tensors, 1e-5, True, segments)
    assert torch.equal(before[:, :first], after[:, :first])
    assert not torch.equal(before[:, first:], after[:, first:])


def test_half_precision_saturates_and_sums_do_not_overflow() -> None:
    one = torch.ones(1, 200, 16, dtype=torch.float16)
    v = torch.full((1, 200, 16), 6e4, dtype=torch.float16)
    assert (forward(one, one, v, 1e-5, False) == 6e4).all()
    assert (forward(one, one, v, -8.0, False)[:, 0] == 65504).all()


def test_any_strides() -> None:
    x = torch.rand(70, 2, 40).transpose(0, 1)
    qf, kf, v = x[..., ::2], x[..., 1::2], x[..., :6]
    assert not qf.is_contiguous()
    y = forward(qf, kf, v, 1e-5, False)
    assert y.is_contiguous()
    assert_near_exact(y, (qf, kf, v, 1e-5, False))


@pytest.mark.parametrize("lead", [(0,), (2, 0)])
def test_empty(lead: tuple[int, ...]) -> None:
    x = torch.rand(*lead, 5, 8)
    assert forward(x, x, x, 1e-5, False).shape == x.shape


@pytest.mark.parametrize(
    ("qf", "kf", "v", "message"),
    [
        (torch.ones(2, 8, dtype=torch.float64),) * 3 + ("float16, bfloat16 or float32; got",),
        (torch.ones(2, 8), torch.ones(2, 8), torch.ones(2, 8).half(), "got torch.float32, torch"),
        (torch.ones(2, 8), torch.ones(3, 8), torch.ones(3, 8), r"got (2, 8), (3, 8), (3, 8)"),
        (torch.ones(2, 8), torch.ones(2, 8), torch.ones(3, 8), "features [..., L, M]"),
    ],
)
def test_bad_input(qf: Tensor, kf: Tensor, v: Tensor, message: str) -> None:
    with pytest.raises(NmnExportError) as error:
        forward(qf, kf, v, 1e-5, False)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("programs", "chunks", "segments"), [(96, 64, 3), (4000, 64, 1), (1, 64, 32), (1, 1, 1)]
)
def test_segments_fill_the_gpu_if_heads_do_not(programs: int, chunks: int, segments: int) -> None:
    assert launch._segments(programs, chunks, processors=132) == segments


@pytest.mark.parametrize(
    ("setting", "precision"), [("highest", "tf32x3"), ("high", "tf32x3"), ("medium", "tf32")]
)
def test_the_setting_of_pytorch_selects_the_products(
    setting: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: setting)
    assert launch.product_precision(torch.float32) == precision
    assert launch.product_precision(torch.float16) == "tf32"


@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_kernels_exist_for_every_dtype(capability: int) -> None:
    found = {v.name: v for v in variants(capability) if v.op == "CausalLinearAttention"}
    kinds = itertools.product(("sum", "output"), host.NAMES.values())
    assert set(found) == {f"linear_attention_{kind}_{dtype}" for kind, dtype in kinds}


@pytest.mark.parametrize("dtype", host.NAMES)
def test_precompiled_kernels_compute_the_op(dtype: torch.dtype) -> None:
    case = LinearAttentionCase("host", length=150, features=2 * ALIGNMENT, value_features=ALIGNMENT)
    arguments = case.arguments(dtype)
    y = host.linear_attention(*arguments, segment_chunks=2)
    assert_near_exact(y, arguments)
