import math

import pytest
import torch
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.layers import YatConv1d, YatConv2d, YatConvTranspose2d, YatDense

SHARED = [
    ({"epsilon": 0}, r"epsilon must be positive and finite; got 0\. Use 1e-5"),
    ({"epsilon": -1.0}, r"epsilon must be positive and finite; got -1\.0\."),
    ({"epsilon": math.nan}, r"epsilon must be positive and finite; got nan\."),
    ({"epsilon": math.inf}, r"epsilon must be positive and finite; got inf\."),
    ({"drop_rate": 1.0}, r"drop_rate must be in \[0, 1\); got 1\.0\. Use 0 to keep"),
    ({"drop_rate": -0.1}, r"drop_rate must be in \[0, 1\); got -0\.1\."),
    ({"constant_bias": math.nan}, r"constant_bias must be finite; got nan\. Use another"),
    ({"constant_alpha": math.inf}, r"constant_alpha must be finite; got inf\. Use another"),
]

DENSE = [
    *SHARED,
    ({"alpha": "log"}, r"alpha must be True, False or 'geometric'; got 'log'\. Use constant_alpha"),
    ({"mask": torch.ones(6, 5)}, r"mask must broadcast to .* \(5, 6\); got shape \(6, 5\)\. Give"),
    ({"mask": torch.ones(1, 5, 6)}, r"mask must broadcast to .* \(5, 6\); got shape \(1, 5, 6\)"),
]

CONV = [
    *SHARED,
    ({"use_alpha": "log"}, r"alpha must be True, False or 'geometric'; got 'log'\."),
    ({"mask": torch.ones(5, 1)}, r"mask must broadcast to .* \(6, 4, 3, 3\); got shape \(5, 1\)"),
    ({"groups": 4}, r"groups must divide .*; got groups=4, in_channels=4, out_channels=6\. Choose"),
    ({"groups": 0}, r"groups must divide .*; got groups=0"),
    (
        {"padding_mode": "wrap"},
        r"padding_mode must be one of zeros, .*; got 'wrap'\. Choose",
    ),
    ({"padding": "full"}, r"padding must be a number, 'same' or 'valid'; got 'full'\. Use one"),
    ({"padding": -1}, r"padding must be at least 0; got -1\. Use a larger one"),
    ({"padding": "same", "stride": 2}, r"padding='same' needs stride 1; got \(2, 2\)\. Pad with"),
    (
        {"stride": (1, 2, 3)},
        r"stride must be one number, or 2 numbers for YatConv2d; got \(1, 2, 3\)\. Give one",
    ),
    ({"stride": (1, 0)}, r"stride must be at least 1; got \(1, 0\)\."),
    ({"dilation": 0}, r"dilation must be at least 1; got 0\."),
    ({"kernel_size": 0}, r"kernel_size must be at least 1; got 0\."),
    (
        {"kernel_size": (3,)},
        r"kernel_size must be one number, or 2 numbers for YatConv2d; got \(3,\)\.",
    ),
]

CONV_TRANSPOSE = [
    *SHARED,
    ({"use_alpha": "log"}, r"alpha must be True, False or 'geometric'; got 'log'\."),
    ({"mask": torch.ones(6, 1, 1)}, r"mask must broadcast to .* \(4, 3, 3, 3\); got shape"),
    ({"groups": 4}, r"groups must divide .*; got groups=4, in_channels=4, out_channels=6\. Choose"),
    ({"padding_mode": "reflect"}, r"padding_mode must be zeros; got 'reflect'\. Leave it out"),
    ({"padding": -1}, r"padding must be at least 0; got -1\. Use a larger one"),
    (
        {"output_padding": 1},
        r"output_padding must be smaller than the stride or the dilation; "
        r"got \(1, 1\) with stride \(1, 1\), dilation \(1, 1\)\. Use a smaller",
    ),
    ({"output_padding": (2, 0), "stride": (2, 1)}, r"must be smaller than the stride or the dil"),
    ({"output_padding": -1}, r"output_padding must be at least 0; got -1\."),
    (
        {"stride": (1, 2, 3)},
        r"stride must be one number, or 2 numbers for YatConvTranspose2d; got \(1, 2, 3\)\. Give",
    ),
    ({"dilation": 0}, r"dilation must be at least 1; got 0\."),
    ({"kernel_size": 0}, r"kernel_size must be at least 1; got 0\."),
]


def names(options: object) -> str | None:
    return "+".join(options) if isinstance(options, dict) else ""


@pytest.mark.parametrize(("options", "message"), DENSE, ids=names)
def test_a_bad_option_of_a_dense_layer_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(NmnExportError, match=message):
        YatDense(6, 5, **options)


@pytest.mark.parametrize(("options", "message"), CONV, ids=names)
def test_a_bad_option_of_a_convolution_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(NmnExportError, match=message):
        YatConv2d(4, 6, **{"kernel_size": 3, **options})


@pytest.mark.parametrize(("options", "message"), CONV_TRANSPOSE, ids=names)
def test_a_bad_option_of_a_transposed_convolution_is_refused(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(NmnExportError, match=message):
        YatConvTranspose2d(4, 6, **({"kernel_size": 3, "groups": 2} | options))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            torch.zeros(7, 7),
            r"YatConvTranspose2d takes input of 4 dimensions .*; got shape \(7,",
        ),
        (torch.zeros(1, 3, 7, 7), r"YatConvTranspose2d takes 4 input channels; got 3 in shape"),
        (
            torch.zeros(1, 4, 7, 7).int(),
            r"YatConvTranspose2d takes floating-point input; got torch",
        ),
    ],
    ids=["rank", "channels", "dtype"],
)
def test_a_bad_input_of_a_transposed_convolution_is_refused(bad: Tensor, message: str) -> None:
    with pytest.raises(NmnExportError, match=message):
        YatConvTranspose2d(4, 6, 3)(bad)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(4, 7), r"YatDense takes 6 input channels; got 7 in shape \(4, 7\)\. Change"),
        (torch.tensor(1.0), r"YatDense takes 6 input channels; got none in shape \(\)\."),
        (
            torch.zeros(4, 6, dtype=torch.int64),
            r"YatDense takes floating-point input; got torch\.int64\. Call \.float\(\) on it",
        ),
    ],
    ids=["size", "scalar", "dtype"],
)
def test_a_bad_input_of_a_dense_layer_is_refused(bad: Tensor, message: str) -> None:
    with pytest.raises(NmnExportError, match=message):
        YatDense(6, 5)(bad)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            torch.zeros(7),
            r"YatConv1d takes input of 3 dimensions \(batch and channels included\); "
            r"got shape \(7,\)\. Add or remove dimensions",
        ),
        (torch.zeros(1, 3, 7), r"YatConv1d takes 4 input channels; got 3 in shape \(1, 3, 7\)\."),
        (
            torch.zeros(1, 4, 7, dtype=torch.uint8),
            r"YatConv1d takes floating-point input; got torch\.uint8\. Call \.float\(\) on it",
        ),
    ],
    ids=["rank", "channels", "dtype"],
)
def test_a_bad_input_of_a_convolution_is_refused(bad: Tensor, message: str) -> None:
    with pytest.raises(NmnExportError, match=message):
        YatConv1d(4, 6, 3)(bad)


def test_integers_are_welcome_where_the_layer_has_a_dtype_to_cast_them_to() -> None:
    layer = YatDense(6, 5, dtype=torch.float32)
    assert layer(torch.ones(2, 6, dtype=torch.int64)).dtype == torch.float32
