import re

import pytest
import torch

from nmn_export.kernels.ahead_of_time.build import ARCHITECTURES
from nmn_export.kernels.ahead_of_time.variant import MODES
from nmn_export.kernels.ahead_of_time.variants import variants
from nmn_export.kernels.weights import DTYPES
from tests import enclosure
from tests.cases import DenseCase, conv_case, conv_transpose_case, dense_case
from tests.kernels import host

DENSE_NAMES = (
    "odd-sizes",
    "one-past-a-power-of-two",
    "no-leading-axis",
    "alpha-zero",
    "near",
    "near-alpha-negative",
    "spherical",
    "spherical-no-bias",
)
CONV_NAMES = (
    "one-past-a-power-of-two",
    "1d",
    "3d",
    "pointwise",
    "depthwise-multiplied",
    "near-group",
    "near-alpha-negative",
    "alpha-zero",
)
CONV_TRANSPOSE_NAMES = ("group-1d", "everything-3d", "stride-3", "near-group")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "case",
    [
        DenseCase("seven-features", batch=(5,), in_features=7, out_features=9),
        DenseCase("three-planes", batch=(2,), in_features=48, out_features=67, alpha=-1.0),
        *map(dense_case, DENSE_NAMES),
    ],
    ids=lambda case: case.id,
)
def test_dense_of_any_size(case: DenseCase, dtype: torch.dtype) -> None:
    arguments = case.arguments(dtype)
    enclosure.assert_near_exact(host.dense(*arguments), case, arguments)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case_id", CONV_NAMES)
def test_conv_of_any_size(case_id: str, dtype: torch.dtype) -> None:
    case = conv_case(case_id)
    arguments = case.arguments(dtype)
    enclosure.assert_near_exact(host.conv(*arguments), case, arguments)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case_id", CONV_TRANSPOSE_NAMES)
def test_transposed_conv_of_any_size(case_id: str, dtype: torch.dtype) -> None:
    case = conv_transpose_case(case_id)
    arguments = case.arguments(dtype)
    enclosure.assert_near_exact(host.conv_transpose(*arguments), case, arguments)


@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_divisibility_that_general_kernels_require(capability: int) -> None:
    promised = {"row_norm": set(), "yat_dense": {"weight_out_feat_stride"}}
    promised["yat_conv"] = {"weight_plane_stride", "weight_out_feat_stride"}
    promised["yat_conv_transpose"] = promised["yat_conv"]
    promised["yat_attention"] = set()
    general = [v for v in variants(capability) if "_general" in v.name]
    assert len(general) == 3 + (4 + 2 + 2) * len(MODES) + 2 * len(host.MODES)
    for variant in general:
        numbers = {p for p in variant.divisible if not variant.types[p].startswith("*")}
        (kernel,) = [k for k in promised if re.fullmatch(rf"{k}_(fp|bf)\d\d_.*", variant.name)]
        assert numbers == promised[kernel], variant.name
        assert variant.constants.get("EVEN", False) is False


@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_shared_kernels_exist_for_every_dtype(capability: int) -> None:
    names = {variant.name for variant in variants(capability)}
    for dtype in host.NAMES.values():
        assert {f"prepare_weight_{dtype}", f"pack_pixels_{dtype}"} <= names
        assert {f"row_norm_{dtype}", f"row_norm_{dtype}_general"} <= names
