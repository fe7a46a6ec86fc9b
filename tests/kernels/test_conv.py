import dataclasses
import itertools

import pytest
import torch
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.kernels.conv.images import Geometry, is_channels_last, plan_conv
from nmn_export.kernels.conv.launch import forward, yat_conv
from nmn_export.kernels.conv.weights import prepare_conv
from nmn_export.kernels.device import Device
from nmn_export.kernels.tile_size import Tile
from nmn_export.kernels.weights import Float32Precision
from tests import enclosure
from tests.cases import CONV_CASES, ConvCase, conv_case, with_dtypes

TILES = (Tile(m=16, n=32, k=16, warps=4, stages=3), Tile(m=64, n=16, k=16, warps=4, stages=3))
FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}


def compute(
    arguments: tuple[object, ...], tile: Tile, precision: Float32Precision | None = None
) -> Tensor:
    x, weight, bias, epsilon, alpha, *geometry, group = arguments
    weights = prepare_conv(weight, bias, epsilon, alpha, group, dtype=x.dtype, precision=precision)
    tile = dataclasses.replace(tile, k=weights.block_k)
    return yat_conv(x, weights, Geometry.of("YatConv", weights.rank, *geometry), tile)


CASES = [
    pytest.param(*case.values, tile, id=f"{case.id}-{tile.m}x{tile.n}")
    for case, tile in zip(
        with_dtypes(CONV_CASES, torch.float16, torch.bfloat16),
        itertools.cycle((*TILES, TILES[0])),
    )
]


@pytest.mark.parametrize(("case", "dtype", "tile"), CASES)
def test_near_exact(case: ConvCase, dtype: torch.dtype, tile: Tile) -> None:
    arguments = case.arguments(dtype)
    y = compute(arguments, tile)
    assert y.is_contiguous()
    enclosure.assert_near_exact(y, case, arguments)


@pytest.mark.parametrize("case_id", ["plain", "strides", "asymmetric-pads", "everything-3d"])
def test_channels_last_stays_channels_last(case_id: str) -> None:
    case = conv_case(case_id)
    arguments = case.arguments(torch.float16)
    x = arguments[0].to(memory_format=FORMATS[case.rank])
    y = compute((x, *arguments[1:]), TILES[0])
    assert is_channels_last(y)
    enclosure.assert_near_exact(y, case, arguments)


@pytest.mark.parametrize("channels", [3, 16, 24, 40, 64])
def test_channels_in_steps(channels: int) -> None:
    case = ConvCase("steps", size=(3, 4), kernel=(2, 2), channels=channels, out_channels=5)
    arguments = case.arguments(torch.float16)
    enclosure.assert_near_exact(compute(arguments, TILES[1]), case, arguments)


def test_groups_of_channels_that_do_not_fill_a_step() -> None:
    case = ConvCase("groups", size=(3, 4), kernel=(2, 2), channels=42, out_channels=6, group=2)
    arguments = case.arguments()
    enclosure.assert_near_exact(compute(arguments, TILES[1]), case, arguments)


@pytest.mark.parametrize("precision", ["bf16x6", "ieee"])
def test_float32_is_as_good_as_float32(precision: Float32Precision) -> None:
    case = conv_case("near")
    arguments = case.arguments()
    enclosure.assert_near_exact(compute(arguments, TILES[0], precision), case, arguments)


def test_tf32_computes_norms_from_truncated_values() -> None:
    case = conv_case("near")
    x, weight, *rest = case.arguments()
    seen = (x.view(torch.int32) & -8192).view(torch.float32)
    rounded = ((weight.view(torch.int32) + 4096) & -8192).view(torch.float32)
    y = compute((x, weight, *rest), TILES[0], "tf32")
    enclosure.assert_near_exact(y, case, (seen, rounded, *rest))


def test_any_strides() -> None:
    case = conv_case("plain")
    x, weight, *rest = case.arguments()
    strided = torch.zeros(*x.shape[:2], 6, 14)[..., ::2].copy_(x)
    filters = weight.to(memory_format=torch.channels_last)
    y = forward(strided, filters, *rest)
    enclosure.assert_near_exact(y, case, (x, weight, *rest))


def test_empty() -> None:
    y = forward(
        torch.ones(0, 4, 5, 5), torch.ones(6, 4, 3, 3), None, 1e-5, 1.0, (1, 1), (0,) * 4, (1, 1), 1
    )
    assert y.shape == (0, 6, 3, 3)


GOOD = {
    "x": torch.ones(2, 4, 5, 5),
    "weight": torch.ones(6, 2, 3, 3),
    "bias": None,
    "epsilon": 1e-5,
    "alpha": 1.0,
    "strides": (1, 1),
    "pads": (0, 0, 0, 0),
    "dilations": (1, 1),
    "group": 2,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(2, 4, 5, 5).double()}, "float16, bfloat16 or float32"),
        ({"x": torch.ones(2, 5, 5, 5)}, "4 dimensions and 4 channels; got shape (2, 5, 5, 5)"),
        ({"x": torch.ones(4, 5, 5)}, "4 dimensions and 4 channels"),
        ({"x": torch.ones(2, 4, 2, 5)}, "at least as large as a dilated filter"),
        ({"x": torch.ones(2, 4, 5, 5, device="meta")}, "prepared for torch.float32 on cpu"),
        ({"weight": torch.ones(6, 2)}, "one to three spatial axes"),
        ({"group": 4}, "groups that divide its 6 filters; got group 4"),
        ({"group": 0}, "groups that divide"),
        ({"bias": torch.ones(5)}, "bias of shape [6] or [1]"),
        ({"strides": (1,)}, "2 strides and dilations and 4 pads"),
        ({"pads": (0, 0)}, "2 strides and dilations and 4 pads"),
        ({"dilations": (0, 1)}, "strides and dilations of at least 1"),
        ({"pads": (0, -1, 0, 0)}, "pads of at least 0"),
        ({"epsilon": 0.0}, "must be positive"),
    ],
)
def test_bad_input(change: dict[str, object], message: str) -> None:
    with pytest.raises(NmnExportError) as error:
        forward(**GOOD | change)
    assert message in str(error.value)


def test_plan_prefers_narrow_tiles_where_wide_ones_would_spill() -> None:
    weights = prepare_conv(
        torch.ones(256, 64, 3, 3), None, 1e-5, 1.0, 1, dtype=torch.float16, precision=None
    )
    hopper = Device(capability=90, processors=132)
    assert plan_conv(100_000, weights, True, 2, hopper).n == 128
    assert plan_conv(100_000, weights, False, 2, hopper).n == 64
    assert plan_conv(49, weights, True, 2, hopper).m == 64


@pytest.mark.parametrize("rank", [2, 3])
def test_the_op_promises_the_format_that_the_kernel_gives(rank: int) -> None:
    # torch.compile plans the layout by the fake op, so the layouts must be equal.
    x = torch.empty(2, 4, *(5,) * rank, device="meta")
    weight = torch.empty(6, 4, *(3,) * rank, device="meta")
    geometry = ((1,) * rank, (0,) * 2 * rank, (1,) * rank, 1)
    for layout in (torch.contiguous_format, FORMATS[rank]):
        y = torch.ops.nmn.yat_conv(x.to(memory_format=layout), weight, None, 1e-5, 1.0, *geometry)
        assert y.is_contiguous(memory_format=layout)
