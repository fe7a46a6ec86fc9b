import pytest
import torch

from nmn_export.kernels.row_norms import row_norms
from nmn_export.kernels.weights import DTYPES
from tests.kernels import host


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "features", "gap"), [(1, 1, 0), (17, 7, 0), (16, 7, 2), (5, 200, 1)]
)
def test_rows_of_any_stride(rows: int, features: int, gap: int, dtype: torch.dtype) -> None:
    storage = torch.full((rows, features + gap), float("nan"), dtype=dtype)
    x = storage[:, :features].copy_(torch.randn(rows, features))
    expected = x.double().square().sum(1).float()
    for take in (row_norms, host.row_norms):
        torch.testing.assert_close(take(x), expected, rtol=1e-5, atol=0)
