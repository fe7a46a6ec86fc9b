"""The kernels of YatAttention that are compiled ahead of time, in the interpreter."""

import dataclasses

import pytest
import torch

from nmn_export.kernels.ahead_of_time.build import ARCHITECTURES
from nmn_export.kernels.attention.variants import attention_variants
from tests.attention_enclosure import assert_attention_near_exact
from tests.cases import AttentionCase, attention_case
from tests.kernels.attention_host import attention

LONG = AttentionCase("long", batch=1, queries=20, keys=130, features=48, value_features=32)

ROUTES = [
    ("plain", 64, 1, dataclasses.replace(LONG, is_causal=True)),
    ("plain", 32, 1, dataclasses.replace(LONG, features=16, heads=6, key_heads=3)),
    ("plain", 128, 1, dataclasses.replace(LONG, queries=130, features=96, is_causal=True)),
    ("masked", 64, 1, dataclasses.replace(LONG, mask="additive")),
    ("masked", 256, 1, dataclasses.replace(LONG, mask="pairs", value_features=240)),
    ("split", 64, 2, dataclasses.replace(LONG, mask="keys", spherical=True)),
    ("split", 64, 3, dataclasses.replace(LONG, power=1.5, is_causal=True)),
    ("general", 64, 1, dataclasses.replace(LONG, features=13, value_features=5, scale=-0.4)),
    ("general", 64, 2, dataclasses.replace(LONG, features=1, value_features=1, mask="heads")),
    ("general", 256, 1, dataclasses.replace(LONG, keys=20, features=77, power=2.0)),
]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(
    ("family", "features", "parts", "case"), ROUTES, ids=[f"{r[0]}-{r[1]}-{r[2]}" for r in ROUTES]
)
def test_families(
    family: str, features: int, parts: int, case: AttentionCase, dtype: torch.dtype
) -> None:
    q, k, v, mask, *rest = arguments = case.arguments(dtype)
    full = torch.zeros(1, 1, 1, 1, dtype=dtype) if mask is None else mask
    full = full.reshape((1,) * (4 - full.ndim) + full.shape)
    y = attention(family, features, parts, q, k, v, full, *rest)
    assert_attention_near_exact(y, case, arguments, rounds_weights=True)


@pytest.mark.parametrize("family", ["plain", "masked", "split", "general"])
def test_one_number_for_all_scores(family: str) -> None:
    q, k, v, _, *rest = attention_case("plain").arguments(torch.float16)
    q, k, v = (torch.cat([t, t], 3) for t in (q, k, v))  # of 16 features

    def compute(number: float) -> torch.Tensor:
        mask = torch.full((1, 1, 1, 1), number, dtype=torch.float16)
        return attention(family, 64, 1, q, k, v, mask, *rest)

    plain = compute(0.0)
    torch.testing.assert_close(compute(-2.5), plain, rtol=2e-3, atol=2e-3)
    assert not compute(float("-inf")).any()
    for number in (float("nan"), float("inf")):
        assert compute(number).isnan().all()


@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_tiles_serve_all_features_up_to_256(capability: int) -> None:
    tiles: dict[tuple[str, str], list[int]] = {}
    for variant in attention_variants(capability):
        mode, family = variant.name.removeprefix("yat_attention_").rsplit("_", 2)[:2]
        assert variant.constants["BLOCK_SIZE_FEAT"] == variant.constants["BLOCK_SIZE_VALUE_FEAT"]
        tiles.setdefault((mode, family), []).append(variant.constants["BLOCK_SIZE_FEAT"])
    assert len(tiles) == 3 * 4
    assert all(max(features) == 256 for features in tiles.values())
