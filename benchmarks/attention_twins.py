"""ⵟ-attention for the CPU benchmark, and the softmax attention that each is compared with."""

import importlib

import torch.nn.functional as F
from torch import Tensor, nn

from nmn_export.layers import MultiHeadYatAttention, yat_attention


class AttentionOnly(nn.Module):
    """ⵟ-attention without projections, of queries, keys and values [3, B, L, H, D] in one tensor.

    Args:
        is_causal: Whether a query attends to earlier keys only.
    """

    def __init__(self, is_causal: bool = False) -> None:
        super().__init__()
        self.is_causal = is_causal

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, L, H, D]."""
        q, k, v = x.unbind()
        return yat_attention(q, k, v, training=False, is_causal=self.is_causal)


class SoftmaxOnly(AttentionOnly):
    """The same with plain softmax attention."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, L, H, D]."""
        q, k, v = (t.transpose(1, 2) for t in x.unbind())
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.is_causal)
        return y.transpose(1, 2)


class UpstreamOnly(AttentionOnly):
    """The same with the function of the `nmn` package, which takes a mask to be causal."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, L, H, D]."""
        nmn = importlib.import_module("nmn.torch.attention")
        q, k, v = x.unbind()
        mask = causal_mask(x, x.shape[2]) if self.is_causal else None
        y: Tensor = nmn.yat_attention(q, k, v, mask=mask, training=False)
        return y


class SoftmaxAttention(nn.Module):
    """Plain multi-head self-attention with the projections of a ⵟ-attention."""

    def __init__(self, layer: MultiHeadYatAttention) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = layer.q_proj, layer.k_proj, layer.v_proj
        self.out_proj = layer.out_proj
        self.heads, self.is_causal = layer.num_heads, layer.is_causal

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, L, E] to itself."""
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in projections)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.is_causal)
        y = y.transpose(1, 2).flatten(2)
        return y if self.out_proj is None else self.out_proj(y)


class UpstreamAttention(nn.Module):
    """The layer of the `nmn` package, which takes a mask to be causal."""

    def __init__(self, layer: MultiHeadYatAttention) -> None:
        super().__init__()
        nmn = importlib.import_module("nmn.torch")
        self.layer = nmn.MultiHeadYatAttention(
            layer.embed_dim,
            layer.num_heads,
            constant_alpha=layer.constant_alpha,
            epsilon=layer.epsilon,
        )
        self.layer.load_state_dict(layer.state_dict())
        self.is_causal = layer.is_causal

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, L, E] to itself."""
        y: Tensor = self.layer(x, mask=causal_mask(x, x.shape[1]) if self.is_causal else None)
        return y


def causal_mask(x: Tensor, length: int) -> Tensor:
    """Return booleans [L, L] that let a token attend to itself and to earlier ones."""
    return x.new_ones(length, length).tril().bool()
