"""Boolean masks of attention: true where a query attends to a key."""

import torch
from torch import Tensor

from nmn_export.errors import NmnExportError


def hide_keys(kf: Tensor, mask: Tensor | None) -> Tensor:
    """Return features of keys [..., Lk, M] with zeros where a mask [..., 1, Lk] is false.

    Raises:
        NmnExportError: The mask differs between queries.
    """
    if mask is None:
        return kf
    if mask.ndim < 2 or mask.shape[-2] != 1:
        raise NmnExportError(
            "Linear attention takes a mask of keys, of shape [..., 1, keys]",
            got=f"shape {tuple(mask.shape)}",
            fix="Leave the causal mask out and use causal=True; other masks need exact attention.",
        )
    return torch.where(boolean(mask).mT, kf, 0.0)


def boolean(mask: Tensor) -> Tensor:
    """Return a mask as booleans, or raise `NmnExportError` if it is one to add to scores."""
    if mask.is_floating_point():
        raise NmnExportError(
            "The mask must be boolean: true where a key is attended to",
            got=mask.dtype,
            fix="Convert one that is added to scores by mask == 0.",
        )
    return mask.bool()


def attending(mask: Tensor, length: int, causal: bool) -> Tensor:
    """Return which queries attend to any key in any head, as [B, length, 1].

    Args:
        mask: Broadcasts to [B, H, length, length].
        length: The number of queries and keys.
        causal: Whether later keys are hidden, too.
    """
    mask = boolean(mask)
    if causal:
        mask = mask & mask.new_ones(length, length).tril()
    rank = mask.ndim  # with negative axes, ONNX Runtime does not reduce an empty batch
    found = mask.any(rank - 1)
    return (found.any(rank - 3) if rank > 2 else found).unsqueeze(-1)
