"""Rotary positions: pairs of features are rotated by angles that grow with the position."""

import numpy as np
import torch
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.layers.constants import Float32Constants


class RotaryEmbedding(Float32Constants):
    """Rotates pairs of neighbouring features by angles that are proportional to the position.

    Args:
        head_dim: D, even.
        max_seq_len: The number of positions.
        theta: Pair i turns by θ^(−2i/D) per position.
    """

    freqs_cos: Tensor
    freqs_sin: Tensor

    def __init__(
        self, head_dim: int, max_seq_len: int, theta: float, device: torch.device | str | None
    ) -> None:
        super().__init__()
        inverse = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
        angles = np.outer(np.arange(max_seq_len, dtype=np.float64), inverse)
        for name, table in (("freqs_cos", np.cos(angles)), ("freqs_sin", np.sin(angles))):
            tensor = torch.as_tensor(table, dtype=torch.float32, device=device)
            self.register_buffer(name, tensor, persistent=False)

    def positions(self, first: int | Tensor, length: int) -> Tensor:
        """Return the positions [length] from `first` on.

        Raises:
            NmnExportError: `first` is a number, and the table has fewer positions.
        """
        positions = torch.arange(length, device=self.freqs_cos.device) + first
        if isinstance(first, int) and first + length > len(self.freqs_cos):
            raise NmnExportError(
                f"There are {len(self.freqs_cos)} positions",
                got=f"{length} tokens from position {first} on",
                fix="Build the layer with a larger max_seq_len.",
            )
        return positions

    def forward(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the cosines and sines [..., D / 2] of the angles at `positions` [...]."""
        return self.freqs_cos.to(dtype)[positions], self.freqs_sin.to(dtype)[positions]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs of x [..., D] by angles whose cosines and sines are [..., D / 2]."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)
