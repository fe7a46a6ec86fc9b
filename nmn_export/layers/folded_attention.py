"""MultiHeadYatAttention as inference needs it."""

import torch
from torch import Tensor

from nmn_export.layers.attention_heads import AttentionHeads
from nmn_export.layers.folded import Folded


class FoldedYatAttention(AttentionHeads, Folded):
    """Projections around one `nmn::yat_attention`, with numbers for ε and the scale.

    Args:
        layer: The layer, whose projections are used.
        epsilon: ε.
        scale: The multiplier of the ⵟ-product, α / √D.
        spherical: As in the op, and so are the others.
        power: 0 for softmax.
        guard: Added to the sum of powers.
    """

    def __init__(
        self,
        layer: AttentionHeads,
        *,
        epsilon: float,
        scale: float,
        spherical: bool,
        power: float,
        guard: float,
    ) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = layer.q_proj, layer.k_proj, layer.v_proj
        self.out_proj = layer.out_proj
        self.embed_dim, self.head_dim = layer.embed_dim, layer.head_dim
        self.num_heads, self.num_key_heads = layer.num_heads, layer.num_key_heads
        self.normalize_qk = layer.normalize_qk
        self.is_causal = layer.is_causal
        self.dtype = layer.dtype
        self.epsilon, self.scale = epsilon, scale
        self.spherical = spherical
        self.power, self.guard = power, guard

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, deterministic: bool = True
    ) -> Tensor:
        """Apply the op. `deterministic` has no effect in inference."""
        del deterministic
        y: Tensor = torch.ops.nmn.yat_attention(
            q,
            k.to(q.dtype),
            v.to(q.dtype),
            mask,
            self.epsilon,
            self.scale,
            self.is_causal,
            self.spherical,
            self.power,
            self.guard,
        )
        return y
