import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nmn_export.kernels.conv.channels_last import pack_pixels
from nmn_export.kernels.weights import DTYPES
from tests.kernels import host


def expected(images: Tensor, group: int, padded: int) -> tuple[Tensor, Tensor]:
    pixels = images.flatten(2).movedim(1, -1).reshape(-1, group, images.shape[1] // group)
    packed = torch.zeros(*pixels.shape[:2], padded, dtype=images.dtype)
    packed[..., : pixels.shape[2]] = pixels
    return packed, pixels.float().square().sum(2)


@settings(max_examples=40, deadline=None)
@given(
    images=st.integers(1, 3),
    group=st.integers(1, 3),
    features=st.one_of(st.integers(1, 20), st.sampled_from((63, 64, 65, 130))),
    size=st.sampled_from(((1,), (31,), (32,), (3, 11), (8, 8), (3, 4, 7))),
    padding=st.sampled_from((0, 1, 16)),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**32 - 1),
)
def test_pixels_and_norms(
    images: int,
    group: int,
    features: int,
    size: tuple[int, ...],
    padding: int,
    dtype: torch.dtype,
    seed: int,
) -> None:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(images, group * features, *size, generator=random).to(dtype)
    packed, norm = expected(x, group, features + padding)
    for pack in (pack_pixels, host.pack_pixels):
        pixels, norms = pack(x, group, features + padding)
        assert torch.equal(pixels, packed)
        torch.testing.assert_close(norms, norm, rtol=1e-5, atol=0)


def test_norms_of_truncated_values() -> None:
    x = torch.randn(2, 5, 3, 4)
    seen = (x.view(torch.int32) & -8192).view(torch.float32)
    pixels, norms = pack_pixels(x, 1, 16, truncate=True)
    assert torch.equal(pixels, expected(x, 1, 16)[0])
    torch.testing.assert_close(norms, expected(seen, 1, 16)[1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(0, 4, 3, 3), (2, 4, 0, 3)])
def test_empty(shape: tuple[int, ...]) -> None:
    pixels, norms = pack_pixels(torch.ones(shape), 2, 2)
    assert (pixels.shape, norms.shape) == ((0, 2, 2), (0, 2))
