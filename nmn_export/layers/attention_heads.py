"""Projections, heads and masks around an attention, in training and in inference."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nmn_export.errors import NmnExportError
from nmn_export.layers.attention_mask import added_to_scores, visible_keys
from nmn_export.ops.yat import compute_dtype

SMALLEST_NORM = 1e-12
"""Least norm that normalised queries and keys are divided by, so that a zero vector stays zero."""


class Projection(nn.Linear):
    """A linear layer whose parameters are cast to the dtype of the input."""

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., in_features] to [..., out_features]."""
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)


class AttentionHeads(nn.Module):
    """Base of a multi-head attention and of its form in inference.

    Attributes:
        q_proj: To [B, Lq, H · D]; `k_proj` and `v_proj` to [B, Lk, G · D], for G key heads.
        out_proj: Back to the size of the query, or `None`.
        head_dim: D.
        normalize_qk: Whether queries and keys of each head are divided by their norms.
        is_causal: Whether query i attends to keys up to i + Lk − Lq only.
        dtype: Inputs and parameters are cast to it. `None` stands for the dtype of the input.
    """

    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module
    out_proj: nn.Module | None
    embed_dim: int
    num_heads: int
    num_key_heads: int
    head_dim: int
    normalize_qk: bool
    is_causal: bool
    dtype: torch.dtype | None

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, deterministic: bool = True
    ) -> Tensor:
        """Return [B, H, Lq, D] for queries [B, H, Lq, D], and keys and values [B, G, Lk, D].

        Args:
            q: Queries.
            k: Keys.
            v: Values.
            mask: Added to the scores.
            deterministic: Whether to keep all weights, even in training.
        """
        raise NotImplementedError

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        deterministic: bool = False,
        additive_mask: Tensor | None = None,
        key_lengths: Tensor | None = None,
    ) -> Tensor:
        """Attend from every token of the query to the tokens of the key.

        Masks broadcast to [B, H, Lq, Lk]. A mask of keys [B, Lk] needs two more axes:
        `mask[:, None, None]`. All that are given are combined.

        Args:
            query: [B, Lq, embed_dim], of any floating dtype.
            key: [B, Lk, embed_dim]; the query if `None`.
            value: [B, Lk, embed_dim]; the key if `None`.
            mask: Says which keys a query attends to: `True`, or any number but zero.
                Floating-point numbers must be zeros and ones.
            deterministic: Whether to keep all weights, even in training. They are always kept in
                eval mode.
            additive_mask: Floating-point numbers that are added to the scores; −∞ hides a key.
            key_lengths: Integers, [B]. Keys after that many are hidden.

        Returns:
            [B, Lq, embed_dim] in the dtype of the layer, or else of the query. A query that no head
            shows a key to gives zeros. A head that shows it none adds nothing.

        Raises:
            NmnExportError: An input has a wrong shape or is not of a floating dtype.
            OptionError: A mask has a wrong shape or dtype.
        """
        is_self = key is None
        key = query if key is None else key
        value = key if value is None else value
        query, key, value = self._checked(query, key, value)
        q = self._split(self.q_proj(query), self.num_heads)
        k = self._split(self.k_proj(key), self.num_key_heads)
        v = self._split(self.v_proj(value), self.num_key_heads)
        if self.normalize_qk:
            q, k = _normalized(q), _normalized(k)
        shape = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
        added = added_to_scores(mask, additive_mask, key_lengths, shape, q.dtype)
        y = self.attend(q, k, v, added, deterministic).transpose(1, 2).flatten(2)
        if self.out_proj is None:
            return y
        projected: Tensor = self.out_proj(y)
        # In self-attention, a causal mask alone hides no query's own key.
        visible = visible_keys(added, self.is_causal and not (is_self and added is None), shape)
        return projected if visible is None else projected.where(any_head(visible), 0)

    def _split(self, x: Tensor, heads: int) -> Tensor:
        """Reshape [B, L, heads · D] to [B, heads, L, D]."""
        return x.reshape(*x.shape[:2], heads, self.head_dim).transpose(1, 2)

    def _checked(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the inputs in the dtype of the layer, or raise `NmnExportError`."""
        for tensor in (query, key, value):
            shape = tuple(tensor.shape)
            if tensor.ndim != 3 or shape[-1] != self.embed_dim:
                raise NmnExportError(
                    f"ⵟ-attention takes inputs of shape (batch, tokens, {self.embed_dim})",
                    got=f"shape {shape}",
                    fix="Add or remove dimensions, or change embed_dim.",
                )
            if not (tensor if self.dtype is None else tensor.to(self.dtype)).is_floating_point():
                raise NmnExportError(
                    "ⵟ-attention takes floating-point input",
                    got=tensor.dtype,
                    fix="Call .float() on it.",
                )
        if not query.shape[0] == key.shape[0] == value.shape[0] or key.shape[1] != value.shape[1]:
            raise NmnExportError(
                "Query, key and value have one batch size, and key and value one length",
                got=f"shapes {', '.join(str(tuple(t.shape)) for t in (query, key, value))}",
                fix="Expand the smaller ones.",
            )
        if self.dtype is None:
            return query, key, value
        return query.to(self.dtype), key.to(self.dtype), value.to(self.dtype)


def _normalized(x: Tensor) -> Tensor:
    wide = x.to(compute_dtype(x.dtype))
    return F.normalize(wide, dim=-1, eps=SMALLEST_NORM).to(x.dtype)


def any_head(visible: Tensor) -> Tensor:
    """Return which queries see a key in some head, [B, Lq, 1], from booleans over the scores."""
    # With the axis -1, ONNX Runtime does not reduce an empty batch.
    visible = visible.any(visible.ndim - 1, keepdim=True)
    return visible if visible.ndim < 4 else visible.any(1)
