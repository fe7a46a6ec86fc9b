import dataclasses
import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.kernels.dense import launch as dense
from nmn_export.kernels.dense.launch import DensePlan, forward, plan_dense, yat_dense
from nmn_export.kernels.dense.weights import prepare_dense
from nmn_export.kernels.device import Device
from nmn_export.kernels.tile_size import Tile
from nmn_export.kernels.weights import Float32Precision
from nmn_export.ops import exact_yat_dense
from tests import enclosure
from tests.cases import DENSE_CASES, DenseCase, dense_case, with_dtypes

SMALL = Tile(m=16, n=32, k=16, warps=4, stages=3)
WIDE_K = dataclasses.replace(SMALL, k=32)
PLANS = (
    DensePlan("grouped", SMALL, programs=3),
    DensePlan("grouped", SMALL, programs=2, descriptors=True),
    DensePlan("row_stationary", SMALL, programs=3),
    DensePlan("row_stationary", WIDE_K, programs=2, descriptors=True),
    DensePlan("split", SMALL, programs=3),
    DensePlan("split", WIDE_K, programs=1),
    DensePlan("grouped", WIDE_K, programs=1),
)
HOPPER = Device(capability=90, processors=132)


def plan_id(plan: DensePlan) -> str:
    return f"{plan.schedule}-{plan.programs}-k{plan.tile.k}" + "-descriptors" * plan.descriptors


def compute(
    arguments: tuple[object, ...], plan: DensePlan, precision: Float32Precision | None = None
) -> Tensor:
    x, weight, bias, epsilon, alpha, spherical = arguments
    weights = prepare_dense(
        weight, bias, epsilon, alpha, spherical, dtype=x.dtype, precision=precision
    )
    return yat_dense(x, weights, plan)


# Four dtypes and seven plans in turn give all pairs.
CASES = [
    pytest.param(*case.values, plan, id=f"{case.id}-{plan_id(plan)}")
    for case, plan in zip(
        with_dtypes(DENSE_CASES, torch.float16, torch.bfloat16), itertools.cycle(PLANS)
    )
]


@pytest.mark.parametrize(("case", "dtype", "plan"), CASES)
def test_near_exact(case: DenseCase, dtype: torch.dtype, plan: DensePlan) -> None:
    arguments = case.arguments(dtype)
    enclosure.assert_near_exact(compute(arguments, plan), case, arguments)


@pytest.mark.parametrize("plan", PLANS, ids=plan_id)
@pytest.mark.parametrize("precision", ["bf16x6", "ieee"])
def test_float32_is_as_good_as_float32(precision: Float32Precision, plan: DensePlan) -> None:
    case = dataclasses.replace(dense_case("near"), batch=(20,), in_features=40, out_features=37)
    arguments = case.arguments()
    enclosure.assert_near_exact(compute(arguments, plan, precision), case, arguments)


@pytest.mark.parametrize("case_id", ["near", "large", "tiny", "one-past-a-power-of-two"])
def test_three_products_have_the_precision_of_two_bfloat16_parts(
    case_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each operand has a relative error up to 2^-16, and the product of the low parts is omitted.
    monkeypatch.setattr(enclosure, "UNITS", enclosure.UNITS + 3 * 2**-16 / 2**-23)
    case = dense_case(case_id)
    arguments = case.arguments()
    enclosure.assert_near_exact(compute(arguments, PLANS[0], "bf16x3"), case, arguments)


@pytest.mark.parametrize("plan", PLANS, ids=plan_id)
def test_tf32_computes_norms_from_truncated_values(plan: DensePlan) -> None:
    case = dense_case("near")
    x, weight, *rest = case.arguments()
    y = compute((x, weight, *rest), plan, "tf32")
    seen = (x.view(torch.int32) & -8192).view(torch.float32)
    rounded = ((weight.view(torch.int32) + 4096) & -8192).view(torch.float32)
    enclosure.assert_near_exact(y, case, (seen, rounded, *rest))


def test_half_precision_saturates_and_nan_stays() -> None:
    x = torch.ones(3, 16, dtype=torch.float16)
    x[1, 3] = float("nan")
    for alpha in (1.0, -1.0):
        y = compute((x, x[:1], None, 1e-5, alpha, False), PLANS[0])
        assert y[0].item() == y[2].item() == alpha * 65504
        assert y[1].isnan().all()


@pytest.mark.parametrize("spherical", [False, True])
def test_any_strides(spherical: bool) -> None:
    storage = torch.randn(40, 3, 2, 5)
    x, weight = storage.permute(1, 2, 3, 0)[..., ::2], torch.randn(20, 7).T
    for plan in (*PLANS, None):
        y = compute((x, weight, None, 0.1, 1.0, spherical), plan)
        expected = exact_yat_dense(x, weight, None, 0.1, 1.0, spherical)
        assert y.is_contiguous()
        torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("launch", [dense._launch_persistent, dense._launch_split])
def test_features_that_are_not_padded(launch: Callable[..., None]) -> None:
    # A host may call the precompiled kernels for any number of features.
    x, weight = torch.randn(5, 13), torch.randn(7, 13)
    y = x.new_empty(5, 7)
    weights = prepare_dense(weight, None, 0.1, 1.0, False, dtype=torch.float32)
    schedule = "split" if launch is dense._launch_split else "grouped"
    launch(x, weights, y, DensePlan(schedule, SMALL, programs=2))
    expected = exact_yat_dense(x, weight, None, 0.1, 1.0, False)
    torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("batch", "in_features", "out_features"), [((0,), 8, 5), ((2, 0), 8, 5), ((3,), 8, 0)]
)
def test_empty(batch: tuple[int, ...], in_features: int, out_features: int) -> None:
    x, weight = torch.randn(*batch, in_features), torch.randn(out_features, in_features)
    assert forward(x, weight, None, 1e-5, 1.0, False).shape == (*batch, out_features)


def test_no_features_leave_the_bias() -> None:
    y = forward(torch.ones(2, 0), torch.ones(3, 0), torch.full((3,), 2.0), 0.5, 1.0, False)
    torch.testing.assert_close(y, torch.full((2, 3), 8.0))


@pytest.mark.parametrize(
    ("x", "weight", "bias", "message"),
    [
        (torch.ones(2, 8, dtype=torch.float64), torch.ones(3, 8), None, "float16, bfloat16 or"),
        (torch.ones(2, 8, dtype=torch.int32), torch.ones(3, 8), None, "float16, bfloat16 or"),
        (torch.ones(2, 7), torch.ones(3, 8), None, "input of 8 features; got shape (2, 7)"),
        (torch.ones(()), torch.ones(3, 8), None, "input of 8 features"),
        (torch.ones(2, 8), torch.ones(3), None, "weight of shape [N, K]; got shape (3,)"),
        (torch.ones(2, 8), torch.ones(3, 8), torch.ones(2), "bias of shape [3] or [1]"),
        (torch.ones(2, 8, device="meta"), torch.ones(3, 8), None, "prepared for torch.float32 on"),
    ],
)
def test_bad_input(x: Tensor, weight: Tensor, bias: Tensor | None, message: str) -> None:
    with pytest.raises(NmnExportError) as error:
        forward(x, weight, bias, 1e-5, 1.0, False)
    assert message in str(error.value)


@pytest.mark.parametrize(("epsilon", "alpha"), [(0.0, 1.0), (float("inf"), 1.0), (1e-5, 1e30)])
def test_bad_numbers(epsilon: float, alpha: float) -> None:
    with pytest.raises(NmnExportError):
        forward(torch.ones(2, 8), torch.ones(3, 8), None, epsilon, alpha, False)


@pytest.mark.parametrize(
    ("shape", "schedule"),
    [
        ((65536, 3072, 768), "row_stationary"),
        ((4096, 3072, 768), "grouped"),
        ((16, 4096, 4096), "split"),
        ((1, 8, 8), "split"),
    ],
)
def test_plan(shape: tuple[int, int, int], schedule: str) -> None:
    plan = plan_dense(*shape, torch.float16, "ieee", HOPPER)
    assert plan.schedule == schedule
    if schedule == "split":
        row_blocks = -(-shape[0] // plan.tile.m)
        assert row_blocks * -(-shape[1] // plan.tile.n) * (plan.programs - 1) < 264
    else:
        assert plan.programs == 264
        assert plan.descriptors


@pytest.mark.parametrize(
    ("batch", "variant"),
    [(1, "split_16x64"), (2048, "grouped"), (1 << 16, "row_stationary")],
)
def test_plan_is_that_of_the_plugin(batch: int, variant: str) -> None:
    # plugins/tests/test_contract.cpp expects the same of the plugin, which assumes 128 SMs.
    plan = plan_dense(batch, 1024, 512, torch.float16, "ieee", Device(90, processors=128))
    tile = f"_{plan.tile.m}x{plan.tile.n}" if plan.schedule == "split" else ""
    assert f"{plan.schedule}{tile}" == variant
