import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.kernels.conv.images import Geometry, is_channels_last
from nmn_export.kernels.conv_transpose.launch import forward, yat_conv_transpose
from nmn_export.kernels.conv_transpose.weights import prepare_conv_transpose
from nmn_export.kernels.tile_size import Tile
from nmn_export.kernels.weights import Float32Precision
from nmn_export.ops.conv_transpose import output_size
from tests import enclosure
from tests.cases import (
    CONV_TRANSPOSE_CASES,
    ConvTransposeCase,
    conv_transpose_case,
    with_dtypes,
)

TILES = (Tile(m=64, n=32, k=16, warps=4, stages=3), Tile(m=64, n=16, k=16, warps=4, stages=3))
FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}


def compute(
    arguments: tuple[object, ...], tile: Tile, precision: Float32Precision | None = None
) -> Tensor:
    x, weight, bias, epsilon, alpha, *positions, output_padding, group = arguments
    weights = prepare_conv_transpose(
        weight, bias, epsilon, alpha, group, dtype=x.dtype, precision=precision
    )
    geometry = Geometry.of("YatConvTranspose", weights.rank, *positions)
    tile = dataclasses.replace(tile, k=weights.block_k)
    return yat_conv_transpose(x, weights, geometry, output_padding, tile)


CASES = [
    pytest.param(*case.values, tile, id=f"{case.id}-{tile.m}x{tile.n}")
    for case, tile in zip(
        with_dtypes(CONV_TRANSPOSE_CASES, torch.float16, torch.bfloat16),
        itertools.cycle((*TILES, TILES[0])),
    )
]


@pytest.mark.parametrize(("case", "dtype", "tile"), CASES)
def test_near_exact(case: ConvTransposeCase, dtype: torch.dtype, tile: Tile) -> None:
    arguments = case.arguments(dtype)
    y = compute(arguments, tile)
    assert y.is_contiguous()
    enclosure.assert_near_exact(y, case, arguments)


axes = st.integers(1, 2).flatmap(
    lambda rank: st.lists(
        st.tuples(
            st.integers(1, 4),  # size
            st.integers(1, 5),  # kernel
            st.integers(1, 4),  # stride
            st.integers(1, 4),  # dilation
            st.integers(0, 4),  # pad before
            st.integers(0, 4),  # pad after
            st.integers(0, 5),  # output padding
        ),
        min_size=rank,
        max_size=rank,
    )
)


@settings(max_examples=20, deadline=None)
@given(axes=axes, group=st.integers(1, 2), alpha=st.sampled_from((1.0, -2.0)))
def test_any_geometry(axes: list[tuple[int, ...]], group: int, alpha: float) -> None:
    size, kernel, strides, dilations, before, after, extra = zip(*axes, strict=True)
    # PyTorch takes no more output padding, and the pads have to leave an output.
    extra = tuple(e % max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True))
    none = (0,) * len(size)
    full = output_size(size, kernel, strides, (*none, *none), dilations, none)
    before = tuple(min(p, n - 1) for p, n in zip(before, full, strict=True))
    after = tuple(min(p, n - 1 - b) for p, n, b in zip(after, full, before, strict=True))
    case = ConvTransposeCase(
        "any",
        size=size,
        kernel=kernel,
        strides=strides,
        dilations=dilations,
        pads=(*before, *after),
        output_padding=extra,
        channels=2 * group,
        out_channels=2 * group,
        group=group,
        alpha=alpha,
    )
    arguments = case.arguments()
    enclosure.assert_near_exact(compute(arguments, TILES[1]), case, arguments)


def test_outputs_that_no_tap_reaches() -> None:
    # With stride 4 and dilation 2, no tap reaches an odd output pixel.
    case = ConvTransposeCase("unreached", size=(3,), kernel=(3,), strides=(4,), dilations=(2,))
    arguments = case.arguments()
    _, weight, bias, epsilon, *_ = arguments
    y = compute(arguments, TILES[0])
    lonely = bias.square() / (weight.square().sum((0, 2)) + epsilon)
    torch.testing.assert_close(y[..., 1::2], lonely[:, None].expand(*y[..., 1::2].shape))
    enclosure.assert_near_exact(y, case, arguments)


@pytest.mark.parametrize("case_id", ["plain", "upsample", "stride-3", "everything-3d"])
def test_channels_last_stays_channels_last(case_id: str) -> None:
    case = conv_transpose_case(case_id)
    arguments = case.arguments(torch.float16)
    x = arguments[0].to(memory_format=FORMATS[case.rank])
    y = compute((x, *arguments[1:]), TILES[0])
    assert is_channels_last(y)
    enclosure.assert_near_exact(y, case, arguments)


@pytest.mark.parametrize("channels", [3, 16, 24, 64])
def test_channels_in_steps(channels: int) -> None:
    case = ConvTransposeCase(
        "steps", size=(2, 3), kernel=(2, 3), channels=channels, out_channels=5, strides=(2, 1)
    )
    arguments = case.arguments(torch.float16)
    enclosure.assert_near_exact(compute(arguments, TILES[1]), case, arguments)


@pytest.mark.parametrize("precision", ["bf16x6", "ieee"])
def test_float32_is_as_good_as_float32(precision: Float32Precision) -> None:
    case = conv_transpose_case("near-strides")
    arguments = case.arguments()
    enclosure.assert_near_exact(compute(arguments, TILES[0], precision), case, arguments)


def test_tf32_computes_norms_from_truncated_values() -> None:
    case = conv_transpose_case("near-strides")
    x, weight, *rest = case.arguments()
    seen = (x.view(torch.int32) & -8192).view(torch.float32)
    rounded = ((weight.view(torch.int32) + 4096) & -8192).view(torch.float32)
    y = compute((x, weight, *rest), TILES[0], "tf32")
    enclosure.assert_near_exact(y, case, (seen, rounded, *rest))


def test_any_strides_of_the_tensors() -> None:
    case = conv_transpose_case("group")
    x, weight, *rest = case.arguments()
    strided = torch.zeros(*x.shape[:2], 4, 10)[..., ::2].copy_(x)
    filters = weight.to(memory_format=torch.channels_last)
    y = forward(strided, filters, *rest)
    enclosure.assert_near_exact(y, case, (x, weight, *rest))


def test_filters_are_prepared_again_after_a_change() -> None:
    case = conv_transpose_case("group")
    x, weight, *rest = case.arguments()
    for _ in range(2):
        enclosure.assert_near_exact(forward(x, weight, *rest), case, (x, weight, *rest))
        weight.mul_(-0.5)


def test_empty() -> None:
    geometry = ((2, 2), (1,) * 4, (1, 1), (0, 0), 1)
    y = forward(torch.ones(0, 4, 5, 5), torch.ones(4, 6, 4, 4), None, 1e-5, 1.0, *geometry)
    assert y.shape == (0, 6, 10, 10)


GOOD = {
    "x": torch.ones(2, 4, 5, 5),
    "weight": torch.ones(4, 3, 3, 3),
    "bias": None,
    "epsilon": 1e-5,
    "alpha": 1.0,
    "strides": (1, 1),
    "pads": (0, 0, 0, 0),
    "dilations": (1, 1),
    "output_padding": (0, 0),
    "group": 2,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(2, 4, 5, 5).double()}, "float16, bfloat16 or float32"),
        ({"x": torch.ones(2, 5, 5, 5)}, "4 dimensions and 4 channels; got shape (2, 5, 5, 5)"),
        ({"x": torch.ones(4, 5, 5)}, "4 dimensions and 4 channels"),
        (
            {"pads": (4, 0, 4, 0)},
            "pads that leave at least one pixel of the output; got output size (-1",
        ),
        ({"x": torch.ones(2, 4, 5, 5, device="meta")}, "prepared for torch.float32 on cpu"),
        ({"weight": torch.ones(4, 2)}, "YatConvTranspose takes filters with one to three spatial"),
        ({"group": 3}, "groups that divide its 4 input channels; got group 3"),
        ({"group": 0}, "groups that divide"),
        ({"bias": torch.ones(3)}, "bias of shape [6] or [1]"),
        ({"strides": (1,)}, "YatConvTranspose over 2 axes takes 2 strides and dilations"),
        ({"dilations": (0, 1)}, "strides and dilations of at least 1"),
        ({"pads": (0, -1, 0, 0)}, "pads of at least 0"),
        ({"output_padding": (0,)}, "2 output paddings of at least 0; got (0,)"),
        ({"output_padding": (0, -1)}, "output paddings of at least 0"),
        ({"strides": (2**16, 1), "dilations": (2**15, 1)}, "strides · dilations of less than 2^31"),
        ({"strides": (2**14, 2**14)}, "fewer than 2^31 elements"),
        ({"epsilon": 0.0}, "must be positive"),
    ],
)
def test_bad_input(change: dict[str, object], message: str) -> None:
    with pytest.raises(NmnExportError) as error:
        forward(**GOOD | change)
    assert message in str(error.value)


def test_the_tile_is_chosen_for_the_patches_of_all_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(
        "nmn_export.kernels.conv.images.plan_conv",
        lambda patches, *_: seen.append(patches) or TILES[0],
    )
    x, weight = torch.ones(2, 4, 3, 5), torch.ones(4, 2, 4, 4)
    forward(x, weight, None, 1e-5, 1.0, (2, 2), (1,) * 4, (1, 1), (0, 0), 1)
    assert seen == [math.prod((2, 6, 10))]


@pytest.mark.parametrize("rank", [2, 3])
def test_the_op_promises_the_format_that_the_kernel_gives(rank: int) -> None:
    # torch.compile plans the layout by the fake op, so the layouts must be equal.
    x = torch.empty(2, 4, *(5,) * rank, device="meta")
    weight = torch.empty(4, 6, *(3,) * rank, device="meta")
    geometry = ((2,) * rank, (0,) * 2 * rank, (1,) * rank, (1,) * rank, 1)
    for layout in (torch.contiguous_format, FORMATS[rank]):
        image = x.to(memory_format=layout)
        y = torch.ops.nmn.yat_conv_transpose(image, weight, None, 1e-5, 1.0, *geometry)
        assert y.is_contiguous(memory_format=layout)
