"""A layer of ⵟ-attention, and inputs for it."""

from typing import Any

import torch
from torch import Tensor

from nmn_export.layers import MultiHeadYatAttention

E, H = 12, 3


def layer(**options: Any) -> MultiHeadYatAttention:
    """A layer in eval mode whose parameters all matter."""
    torch.manual_seed(5)
    y = MultiHeadYatAttention(E, H, **options).eval()
    with torch.no_grad():
        for name, parameter in y.named_parameters():
            noise = torch.randn(parameter.shape).to(parameter.dtype)
            parameter.add_(0.3 * noise.abs() if name == "epsilon_param" else 0.3 * noise)
    return y


def tokens(length: int, batch: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(batch, length, E, generator=torch.Generator().manual_seed(seed))


def masks(queries: int, keys: int, hidden: bool = True) -> Tensor:
    """Booleans for every item, head, query and key; some rows are hidden in one or all heads."""
    mask = torch.rand(2, H, queries, keys, generator=torch.Generator().manual_seed(2)) < 0.5
    mask[..., 0] = True
    if hidden:
        mask[1, :, 1] = False
        mask[0, 2, 0] = False
    return mask
