import gc
import subprocess
import sys
import weakref

import pytest
import torch

from nmn_export.errors import NmnExportError
from nmn_export.kernels import weight_cache
from nmn_export.kernels.weight_cache import cached
from nmn_export.kernels.weights import Prepared, fold, precision_for, prepare


def counted(weight: torch.Tensor, calls: list[Prepared]) -> Prepared:
    def make() -> Prepared:
        calls.append(prepare(weight, None, 1e-5, 1.0, dtype=torch.float32, precision="ieee"))
        return calls[-1]

    return cached(weight, None, ("test",), make)


def test_unchanged_weights_are_prepared_once() -> None:
    storage, calls = torch.randn(8, 32), []
    for _ in range(3):
        found = counted(storage[:5, :16], calls)  # a new view each time
        torch.testing.assert_close(found.planes[0], storage[:5, :16])
    assert len(calls) == 1
    assert found.planes.data_ptr() == storage.data_ptr()


def test_weights_changed_in_place_are_prepared_again() -> None:
    weight, calls = torch.randn(5, 16), []
    before = counted(weight, calls).column_term
    weight.mul_(2)
    after = counted(weight, calls).column_term
    assert len(calls) == 2
    torch.testing.assert_close(after, 4 * before, rtol=1e-4, atol=1e-4)


def test_inference_tensors_are_always_prepared() -> None:
    calls: list[Prepared] = []
    with torch.inference_mode():
        weight = torch.randn(5, 16)
        counted(weight, calls)
        counted(weight, calls)
    assert len(calls) == 2


@pytest.mark.parametrize("features", [16, 15])
def test_the_cache_keeps_no_weight_alive(features: int) -> None:
    weight, calls = torch.randn(5, features), []
    counted(weight, calls)
    calls.clear()
    storage = weakref.ref(weight.untyped_storage())
    del weight
    gc.collect()
    assert storage() is None
    another = torch.randn(3, 16)
    counted(another, [])
    assert not any(weight_cache._expired(entry.storages) for entry in weight_cache._CACHE.values())


@pytest.mark.parametrize(("precision", "planes"), [("bf16x3", 2), ("bf16x6", 3)])
def test_planes_add_up(precision: str, planes: int) -> None:
    rows = torch.randn(3, 20)
    found = prepare(rows, None, 1e-5, 1.0, dtype=torch.float32, precision=precision)
    assert found.planes.shape == (planes, 3, 32)
    left_over = (found.planes.double().sum(0)[:, :20] - rows.double()).abs()
    assert (left_over <= rows.abs() * 2.0 ** (-8 * planes)).all()
    assert not found.planes[..., 20:].any()


def test_alpha_and_epsilon() -> None:
    folded = fold(1e-3, -4.0)
    assert (folded.norm_scale, folded.negative) == (0.25, True)
    assert folded.floor == 0.25e-3
    assert (fold(1e-3, 0.0).norm_scale, fold(1e-3, 0.0).floor) == (0.0, float("inf"))


def test_precision_follows_pytorch() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        for setting, expected in (("highest", "bf16x6"), ("high", "bf16x3"), ("medium", "tf32")):
            torch.set_float32_matmul_precision(setting)
            assert precision_for(torch.float32) == expected
            assert precision_for(torch.float16) == "ieee"
    finally:
        torch.set_float32_matmul_precision(before)
    with pytest.raises(NmnExportError, match="precision must be one of"):
        precision_for(torch.float32, "tf16")


WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
import torch
from nmn_export.kernels.conv.weights import prepare_conv
from nmn_export.kernels.conv_transpose.weights import prepare_conv_transpose
from nmn_export.kernels.dense.weights import prepare_dense
for dtype in (torch.float16, torch.bfloat16, torch.float32):
    prepare_dense(torch.ones(3, 5), None, 1e-5, 1.0, True, dtype=dtype)
    prepare_conv(torch.ones(3, 5, 2, 2), torch.ones(3), 1e-5, 1.0, 1, dtype=dtype)
    prepare_conv_transpose(torch.ones(5, 3, 2, 2), torch.ones(3), 1e-5, 1.0, 1, dtype=dtype)
"""


def test_weights_are_prepared_without_triton() -> None:
    # An engine is also built on machines without Triton.
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TRITON], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
