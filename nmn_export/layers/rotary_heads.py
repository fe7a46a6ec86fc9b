"""The heads of rotary attention: projections before and after it, and the state of a sequence."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nmn_export.errors import NmnExportError, OptionError
from nmn_export.layers.attention_heads import Projection
from nmn_export.layers.rotary_embedding import RotaryEmbedding, rotate
from nmn_export.ops.yat import Scalar, compute_dtype


class RotaryState(NamedTuple):
    """What a causal performer keeps of the tokens so far. Its size does not grow with them.

    Attributes:
        kv: [B, H, M, D], the sum of φ(k) ⊗ v, float32 or wider.
        k_sum: [B, H, M], the sum of φ(k), float32 or wider.
        position: [B], int64, the number of tokens.
    """

    kv: Tensor
    k_sum: Tensor
    position: Tensor


class RotaryHeads(nn.Module):
    """Base of attention with rotary positions.

    Attributes:
        embed_dim: E.
        num_heads: H.
        head_dim: D = E / H.
        dtype: Tokens and parameters are cast to it. `None` stands for the dtype of the tokens.
    """

    embed_dim: int
    num_heads: int
    head_dim: int
    dtype: torch.dtype | None
    q_proj: Projection
    k_proj: Projection
    v_proj: Projection
    o_proj: Projection | None
    query_ln: nn.LayerNorm | None
    key_ln: nn.LayerNorm | None
    rotary: RotaryEmbedding

    def _add_heads(
        self,
        sizes: tuple[int, int, int, float],
        *,
        use_bias: bool,
        use_out_proj: bool,
        normalize_qk: bool,
        storage: torch.dtype,
        device: torch.device | str | None,
    ) -> None:
        """Register the positions, the projections and the norms.

        Args:
            sizes: E, H, the number of positions, and the base of the rotation frequencies.
            use_bias: Whether the projections have a bias.
            use_out_proj: Whether there is a projection after the attention.
            normalize_qk: Whether there are norms.
            storage: Dtype of the parameters.
            device: Their device.

        Raises:
            OptionError: The sizes do not fit.
        """
        embed_dim, num_heads, max_seq_len, theta = sizes
        if num_heads < 1 or embed_dim % (2 * num_heads):
            raise OptionError(
                "embed_dim must be an even multiple of num_heads",
                got=f"embed_dim={embed_dim}, num_heads={num_heads}",
                fix="Change one of them.",
            )
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.rotary = RotaryEmbedding(self.head_dim, max_seq_len, theta, device)

        def projection() -> Projection:
            return Projection(embed_dim, embed_dim, use_bias, device, storage)

        def norm() -> nn.LayerNorm:
            return nn.LayerNorm(self.head_dim, 1e-6, bias=False, device=device, dtype=storage)

        self.q_proj, self.k_proj, self.v_proj = projection(), projection(), projection()
        self.o_proj = projection() if use_out_proj else None
        self.query_ln, self.key_ln = (norm(), norm()) if normalize_qk else (None, None)

    def _checked(self, x: Tensor, rank: int) -> Tensor:
        """Return tokens in the dtype of the layer, or raise `NmnExportError`."""
        x = x if self.dtype is None else x.to(self.dtype)
        if x.ndim != rank or x.shape[-1] != self.embed_dim or not x.is_floating_point():
            shape = ["batch", "length", str(self.embed_dim)]
            raise NmnExportError(
                f"{type(self).__name__} takes floating-point tokens of shape "
                f"[{', '.join(shape if rank == 3 else [shape[0], shape[2]])}]",
                got=f"{x.dtype} of shape {tuple(x.shape)}",
                fix="Change the input, or embed_dim.",
            )
        return x

    def _heads(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q and k, rotated, in float32 or wider, and v: all [B, H, L, D].

        Args:
            x: Tokens, [B, L, E].
            positions: Positions that broadcast to [B, H, L].
        """
        heads = (*x.shape[:2], self.num_heads, self.head_dim)
        q, k, v = (
            linear(x).reshape(heads).transpose(1, 2)
            for linear in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = _normalize(q, self.query_ln), _normalize(k, self.key_ln)
        cos, sin = self.rotary(positions, q.dtype)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def _merged(self, out: Tensor, scale: Scalar) -> Tensor:
        """Return the output [B, L, E] from that of the heads [B, H, L, D], times `scale`."""
        out = out.transpose(1, 2).flatten(2)
        if isinstance(scale, Tensor) or scale != 1:
            out = out * (scale.to(out.dtype) if isinstance(scale, Tensor) else scale)
        return out if self.o_proj is None else self.o_proj(out)


def _normalize(x: Tensor, norm: nn.LayerNorm | None) -> Tensor:
    """Return queries or keys in float32 or wider, after their LayerNorm if there is one."""
    x = x.to(compute_dtype(x.dtype))
    if norm is None:
        return x
    return F.layer_norm(x, norm.normalized_shape, norm.weight.to(x.dtype), None, norm.eps)
