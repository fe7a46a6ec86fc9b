import itertools
import math
from collections.abc import Sequence
from operator import attrgetter

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses import FakeTensorMode

from nmn_export.ops import exact_yat_conv_transpose, yat_conv, yat_conv_transpose
from nmn_export.ops.conv_transpose import flipped_filters, output_size
from tests.cases import (
    CONV_TRANSPOSE_CASES,
    ConvTransposeCase,
    conv_transpose_case,
    with_dtypes,
)
from tests.enclosure import assert_near_exact

TORCH_OP = torch.ops.nmn.yat_conv_transpose

SMALL = tuple(case for case in CONV_TRANSPOSE_CASES if case.id != "one-past-a-power-of-two")

DIFFERENTIABLE = ("1d", "upsample-odd", "dilations-and-strides", "group-1d", "everything-3d")


def literal_yat_conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    output_padding: Sequence[int],
    group: int,
) -> Tensor:
    """The definition in plain loops. A tap that no pixel reaches has the value zero in a patch."""
    rank, per_group, per_filter = len(strides), weight.shape[1], len(weight) // group
    size = [
        (n - 1) * s + (k - 1) * d + 1 + extra - pads[i] - pads[rank + i]
        for i, (n, s, k, d, extra) in enumerate(
            zip(x.shape[2:], strides, weight.shape[2:], dilations, output_padding, strict=True)
        )
    ]
    values = dict(zip(_places(x.shape), x.double().flatten().tolist(), strict=True))
    weights = dict(zip(_places(weight.shape), weight.double().flatten().tolist(), strict=True))
    outputs = per_group * group
    biases = [0.0] * outputs if bias is None else bias.expand(outputs).tolist()
    y = []
    for item, output, *place in _places((len(x), outputs, *size)):
        patch, filter_ = [], []
        for channel, *tap in _places((per_filter, *weight.shape[2:])):
            source = output // per_group * per_filter + channel
            reached = [
                divmod(p + pad - t * d, s)
                for p, pad, t, d, s in zip(place, pads[:rank], tap, dilations, strides, strict=True)
            ]
            pixel = tuple(quotient for quotient, _ in reached)
            between = any(remainder for _, remainder in reached)
            patch.append(0.0 if between else values.get((item, source, *pixel), 0.0))
            filter_.append(weights[(source, output % per_group, *tap)])
        dot = math.fsum(p * w for p, w in zip(patch, filter_, strict=True))
        distance = math.fsum((p - w) ** 2 for p, w in zip(patch, filter_, strict=True))
        y.append(alpha * (dot + biases[output]) ** 2 / (distance + epsilon))
    return torch.tensor(y, dtype=torch.float64).reshape(len(x), outputs, *size)


def _places(shape: Sequence[int]) -> "itertools.product[tuple[int, ...]]":
    return itertools.product(*map(range, shape))


@pytest.mark.parametrize("case", SMALL, ids=attrgetter("id"))
def test_exact_is_the_definition(case: ConvTransposeCase) -> None:
    arguments = case.arguments()
    # A sum of products that cancels loses some digits in float64.
    torch.testing.assert_close(
        exact_yat_conv_transpose(*arguments),
        literal_yat_conv_transpose(*arguments),
        rtol=1e-9,
        atol=0,
    )


def test_exact_sums_differences_where_norms_would_cancel() -> None:
    random = torch.Generator().manual_seed(1)
    weight = torch.randn(9, 40, 1, dtype=torch.float64, generator=random)
    x = weight.permute(1, 0, 2) + 1e-7
    arguments = (x, weight, None, 1e-20, 1.0, (1,), (0, 0), (1,), (0,), 1)
    torch.testing.assert_close(
        exact_yat_conv_transpose(*arguments),
        literal_yat_conv_transpose(*arguments),
        rtol=1e-6,
        atol=0,
    )


@pytest.mark.parametrize(
    ("case", "dtype"),
    with_dtypes(CONV_TRANSPOSE_CASES, torch.float16, torch.bfloat16, torch.float64),
)
def test_eager_is_near_exact(case: ConvTransposeCase, dtype: torch.dtype) -> None:
    arguments = case.arguments(dtype)
    y = yat_conv_transpose(*arguments)
    assert y.dtype == dtype
    assert_near_exact(y, case, arguments)


def test_a_patch_on_a_filter_gives_the_square_over_epsilon_at_most() -> None:
    x, weight, bias, epsilon, *rest = conv_transpose_case("equal").arguments()
    y = yat_conv_transpose(x, weight, bias, epsilon, *rest)
    dot = F.conv_transpose2d(x.double(), weight.double(), bias.double(), stride=2)
    bound = dot.square() / epsilon
    assert y.isfinite().all()
    assert (y <= bound * (1 + 1e-5)).all()
    assert (y > 0.1 * bound).any(), "no patch is on its filter"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("alpha", [1e36, -1e36])
def test_half_precisions_saturate(dtype: torch.dtype, alpha: float) -> None:
    x = torch.full((1, 2, 1), 100.0, dtype=dtype)
    y = yat_conv_transpose(x, x.mT.reshape(2, 1, 1), alpha=alpha)
    assert y.item() == math.copysign(torch.finfo(dtype).max, alpha)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_nan_stays_nan_and_in_its_block(dtype: torch.dtype) -> None:
    x, weight, bias = conv_transpose_case("1d").tensors(dtype)
    x[0, 1, 2] = float("nan")
    y = yat_conv_transpose(x, weight, bias, strides=(2,))
    assert y[0, :, 4:7].isnan().all()
    assert y[0, :, :4].isfinite().all()
    assert y[0, :, 7:].isfinite().all()
    assert y[1].isfinite().all()


def test_half_precisions_accumulate_in_float32() -> None:
    x, weight, bias, *rest = conv_transpose_case("one-past-a-power-of-two").arguments(torch.float16)
    wide = yat_conv_transpose(x.float(), weight.float(), bias, *rest)
    assert torch.equal(yat_conv_transpose(x, weight, bias, *rest), wide.half())


def test_groups_are_transposed_convolutions_side_by_side() -> None:
    case = conv_transpose_case("group")
    x, weight, bias, epsilon, alpha, *geometry, group = case.arguments()
    halves = [
        yat_conv_transpose(*tensors, epsilon, alpha, *geometry, 1)
        for tensors in zip(x.chunk(2, 1), weight.chunk(2), bias.chunk(2), strict=True)
    ]
    whole = yat_conv_transpose(x, weight, bias, epsilon, alpha, *geometry, group)
    torch.testing.assert_close(whole, torch.cat(halves, 1))


def test_with_stride_1_it_is_a_convolution_with_flipped_filters() -> None:
    x, weight, bias = conv_transpose_case("group").tensors()
    y = yat_conv_transpose(x, weight, bias, 1e-5, 1.0, (1, 1), (0,) * 4, (1, 1), (0, 0), 2)
    filters = flipped_filters(weight, 2)
    expected = yat_conv(x, filters, bias, 1e-5, 1.0, (1, 1), (2,) * 4, (1, 1), 2)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


def test_an_output_that_no_pixel_reaches_is_the_bias_squared_over_the_norm_of_the_filter() -> None:
    case = conv_transpose_case("stride-past-the-kernel")
    x, weight, bias, epsilon, *rest = case.arguments()
    y = yat_conv_transpose(x, weight, bias, epsilon, *rest)
    expected = bias.square() / (weight.square().sum((0, 2, 3)) + epsilon)
    for place in ((-1, -1), (2, 1)):  # beyond the last block, and between blocks
        torch.testing.assert_close(y[:, :, *place], expected.expand(2, -1))


def test_an_empty_batch_gives_an_empty_result() -> None:
    x, *rest = conv_transpose_case("group").arguments()
    for op in (yat_conv_transpose, exact_yat_conv_transpose, TORCH_OP):
        assert op(x[:0], *rest).shape == (0, 6, 7, 9)


@pytest.mark.parametrize("case_id", DIFFERENTIABLE)
@pytest.mark.parametrize("op", [yat_conv_transpose, TORCH_OP], ids=["eager", "torch-op"])
def test_gradients_match_finite_differences(case_id: str, op: object) -> None:
    x, weight, bias, _, *rest = conv_transpose_case(case_id).arguments(torch.float64)
    tensors = [t.requires_grad_() for t in (x[:1].clone(), weight, bias) if t is not None]

    def function(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return op(x, weight, bias, 0.1, *rest)

    assert torch.autograd.gradcheck(function, tensors, fast_mode=True)


def test_epsilon_and_alpha_receive_gradients() -> None:
    case = conv_transpose_case("upsample-odd")
    x, weight, bias, _, _, *geometry = case.arguments(torch.float64)
    scalars = [torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (0.3, -0.8)]
    assert torch.autograd.gradcheck(
        lambda e, a: yat_conv_transpose(x, weight, bias, e, a, *geometry), scalars
    )


@pytest.mark.parametrize("case_id", ["1d", "no-bias", "group", "everything-3d"])
def test_the_torch_op_keeps_the_rules_of_custom_ops(case_id: str) -> None:
    x, weight, bias, *rest = conv_transpose_case(case_id).arguments()
    torch.library.opcheck(TORCH_OP.default, (x.requires_grad_(), weight, bias, *rest))


def test_the_torch_op_computes_the_eager_formula() -> None:
    for case in CONV_TRANSPOSE_CASES:
        arguments = case.arguments(torch.bfloat16)
        assert torch.equal(TORCH_OP(*arguments), yat_conv_transpose(*arguments)), case.id


def test_the_shape_rule_agrees_with_the_result() -> None:
    for case in CONV_TRANSPOSE_CASES:
        arguments = case.arguments(torch.float16)
        expected = yat_conv_transpose(*arguments)
        with FakeTensorMode() as mode:
            fake = [mode.from_tensor(a) if isinstance(a, Tensor) else a for a in arguments]
            y = TORCH_OP(*fake)
        assert (y.shape, y.dtype) == (expected.shape, expected.dtype), case.id


def test_the_shape_rule_refuses_another_number_of_channels() -> None:
    x, *rest = conv_transpose_case("group").arguments()
    arguments = (x[:, :3], *rest)
    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(a) if isinstance(a, Tensor) else a for a in arguments]
        with pytest.raises(ValueError, match="x has 3 channels, and weight 4"):
            TORCH_OP(*fake)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    size=st.integers(1, 20),
    kernel=st.integers(1, 6),
    stride=st.integers(1, 5),
    pad=st.integers(0, 3),
    dilation=st.integers(1, 4),
    extra=st.integers(0, 4),
)
def test_the_output_size_is_that_of_a_torch_layer(
    size: int, kernel: int, stride: int, pad: int, dilation: int, extra: int
) -> None:
    found = output_size([size], [kernel], [stride], [pad, pad], [dilation], [extra])
    if extra < max(stride, dilation) and found[0] > 0:
        x, weight = torch.zeros(1, 1, size), torch.zeros(1, 1, kernel)
        y = F.conv_transpose1d(x, weight, None, stride, pad, extra, 1, dilation)
        assert list(y.shape[2:]) == found
