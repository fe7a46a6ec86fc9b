import itertools
import math
from collections.abc import Sequence
from operator import attrgetter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses import FakeTensorMode

from nmn_export.ops import exact_yat_conv, yat_conv
from nmn_export.ops.conv import output_size
from tests.cases import CONV_CASES, ConvCase, conv_case, with_dtypes
from tests.enclosure import assert_near_exact

TORCH_OP = torch.ops.nmn.yat_conv

SMALL = tuple(case for case in CONV_CASES if case.id != "one-past-a-power-of-two")

DIFFERENTIABLE = ("1d", "strides", "dilations", "group-1d", "everything-3d", "asymmetric-pads")


def literal_yat_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
) -> Tensor:
    """The definition in plain loops. Values outside of x are zero."""
    kernel, rank = weight.shape[2:], len(strides)
    size = [
        sum(
            start + (k - 1) * d < n + pads[i] + pads[rank + i]
            for start in range(0, n + pads[i] + pads[rank + i], s)
        )
        for i, (n, k, s, d) in enumerate(zip(x.shape[2:], kernel, strides, dilations, strict=True))
    ]
    values = dict(zip(_places(x.shape), x.double().flatten().tolist(), strict=True))
    filters = weight.double().flatten(1).tolist()
    biases = [0.0] * len(filters) if bias is None else bias.expand(len(filters)).tolist()
    taps = list(_places(weight.shape[1:]))
    y = []
    for item, output, *place in _places((len(x), len(weight), *size)):
        first = output // (len(weight) // group) * weight.shape[1]
        patch = [
            values.get(
                (
                    item,
                    first + channel,
                    *(
                        p * s + t * d - pad
                        for p, s, t, d, pad in zip(
                            place, strides, tap, dilations, pads[:rank], strict=True
                        )
                    ),
                ),
                0.0,
            )
            for channel, *tap in taps
        ]
        dot = math.fsum(p * w for p, w in zip(patch, filters[output], strict=True))
        distance = math.fsum((p - w) ** 2 for p, w in zip(patch, filters[output], strict=True))
        y.append(alpha * (dot + biases[output]) ** 2 / (distance + epsilon))
    return torch.tensor(y, dtype=torch.float64).reshape(len(x), len(weight), *size)


def _places(shape: Sequence[int]) -> "itertools.product[tuple[int, ...]]":
    return itertools.product(*map(range, shape))


@pytest.mark.parametrize("case", SMALL, ids=attrgetter("id"))
def test_exact_is_the_definition(case: ConvCase) -> None:
    arguments = case.arguments()
    # A sum of products that cancels loses some digits in float64.
    torch.testing.assert_close(
        exact_yat_conv(*arguments), literal_yat_conv(*arguments), rtol=1e-9, atol=0
    )


def test_exact_sums_differences_where_norms_would_cancel() -> None:
    weight = torch.randn(40, 9, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    arguments = (weight + 1e-7, weight, None, 1e-20, 1.0, (1,), (0, 0), (1,), 1)
    torch.testing.assert_close(
        exact_yat_conv(*arguments), literal_yat_conv(*arguments), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(
    ("case", "dtype"), with_dtypes(CONV_CASES, torch.float16, torch.bfloat16, torch.float64)
)
def test_eager_is_near_exact(case: ConvCase, dtype: torch.dtype) -> None:
    arguments = case.arguments(dtype)
    y = yat_conv(*arguments)
    assert y.dtype == dtype
    assert_near_exact(y, case, arguments)


def test_a_patch_on_a_filter_gives_the_square_over_epsilon_at_most() -> None:
    x, weight, bias, epsilon, *rest = conv_case("equal").arguments()
    y = yat_conv(x, weight, bias, epsilon, *rest)
    dot = torch.nn.functional.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    assert y.isfinite().all()
    assert (y <= dot.square() / epsilon * (1 + 1e-5)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("alpha", [1e36, -1e36])
def test_half_precisions_saturate(dtype: torch.dtype, alpha: float) -> None:
    x = torch.full((1, 2, 4), 100.0, dtype=dtype)
    y = yat_conv(x, x, alpha=alpha)
    assert y.item() == math.copysign(torch.finfo(dtype).max, alpha)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_nan_stays_nan_and_in_its_patches(dtype: torch.dtype) -> None:
    x, weight, bias = conv_case("1d").tensors(dtype)
    x[0, 1, 0] = float("nan")
    y = yat_conv(x, weight, bias)
    assert y[0, :, 0].isnan().all()
    assert y[0, :, 1:].isfinite().all()
    assert y[1].isfinite().all()


def test_half_precisions_accumulate_in_float32() -> None:
    x, weight, bias = conv_case("one-past-a-power-of-two").tensors(torch.float16)
    wide = yat_conv(x.float(), weight.float(), bias, strides=(1, 1), dilations=(1, 1))
    assert torch.equal(yat_conv(x, weight, bias, strides=(1, 1), dilations=(1, 1)), wide.half())


def test_groups_are_convolutions_side_by_side() -> None:
    x, weight, bias, epsilon, alpha, *geometry, group = conv_case("group").arguments()
    halves = [
        yat_conv(*tensors, epsilon, alpha, *geometry, 1)
        for tensors in zip(x.chunk(2, 1), weight.chunk(2), bias.chunk(2), strict=True)
    ]
    whole = yat_conv(x, weight, bias, epsilon, alpha, *geometry, group)
    torch.testing.assert_close(whole, torch.cat(halves, 1))


def test_an_output_of_padding_only_is_the_bias_squared_over_the_norm_of_the_filter() -> None:
    case = conv_case("pads-beyond-the-kernel")
    x, weight, bias, epsilon, *rest = case.arguments()
    corner = yat_conv(x, weight, bias, epsilon, *rest)[:, :, 0, 0]
    expected = bias.square() / (weight.square().sum((1, 2, 3)) + epsilon)
    torch.testing.assert_close(corner, expected.expand_as(corner))


def test_an_empty_batch_gives_an_empty_result() -> None:
    x, *rest = conv_case("group").arguments()
    for op in (yat_conv, exact_yat_conv, TORCH_OP):
        assert op(x[:0], *rest).shape == (0, 6, 6, 7)


@pytest.mark.parametrize("case_id", DIFFERENTIABLE)
@pytest.mark.parametrize("op", [yat_conv, TORCH_OP], ids=["eager", "torch-op"])
def test_gradients_match_finite_differences(case_id: str, op: object) -> None:
    x, weight, bias, _, *rest = conv_case(case_id).arguments(torch.float64)
    tensors = [t.requires_grad_() for t in (x[:1].clone(), weight, bias) if t is not None]

    def function(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return op(x, weight, bias, 0.1, *rest)

    assert torch.autograd.gradcheck(function, tensors, fast_mode=True)


def test_epsilon_and_alpha_receive_gradients() -> None:
    x, weight, bias, _, _, *geometry = conv_case("strides").arguments(torch.float64)
    scalars = [torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (0.3, -0.8)]
    assert torch.autograd.gradcheck(
        lambda e, a: yat_conv(x, weight, bias, e, a, *geometry), scalars
    )


@pytest.mark.parametrize("case_id", ["1d", "no-bias", "group", "everything-3d"])
def test_the_torch_op_keeps_the_rules_of_custom_ops(case_id: str) -> None:
    x, weight, bias, *rest = conv_case(case_id).arguments()
    torch.library.opcheck(TORCH_OP.default, (x.requires_grad_(), weight, bias, *rest))


def test_the_torch_op_computes_the_eager_formula() -> None:
    for case in CONV_CASES:
        arguments = case.arguments(torch.bfloat16)
        assert torch.equal(TORCH_OP(*arguments), yat_conv(*arguments)), case.id


def test_the_shape_rule_agrees_with_the_result() -> None:
    for case in CONV_CASES:
        arguments = case.arguments(torch.float16)
        expected = yat_conv(*arguments)
        with FakeTensorMode() as mode:
            fake = [mode.from_tensor(a) if isinstance(a, Tensor) else a for a in arguments]
            y = TORCH_OP(*fake)
        assert (y.shape, y.dtype) == (expected.shape, expected.dtype), case.id


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    size=st.integers(1, 40),
    kernel=st.integers(1, 6),
    stride=st.integers(1, 5),
    pads=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    dilation=st.integers(1, 4),
)
def test_the_output_size_is_the_number_of_patches_that_fit(
    size: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int
) -> None:
    extent = (kernel - 1) * dilation + 1
    room = size + sum(pads) - extent
    if room >= 0:
        fitting = len(range(0, room + 1, stride))
        assert output_size([size], [kernel], [stride], pads, [dilation]) == [fitting]
