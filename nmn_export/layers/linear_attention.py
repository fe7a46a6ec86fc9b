"""Linear ⵟ-attention: time and memory grow with the length, not with its square."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nmn_export.errors import NmnExportError
from nmn_export.layers.attention_mask import boolean_mask
from nmn_export.layers.feature_maps import FeatureMap, MaclaurinFeatures, RadialFeatures
from nmn_export.layers.scalars import has_kernels
from nmn_export.ops.linear_attention import (
    LinearState,
    causal_linear_attention,
    linear_attention,
    linear_attention_step,
)
from nmn_export.ops.yat import Scalar, compute_dtype, saturate


class LinearYatAttention(nn.Module):
    """Attention whose weights are inner products of features: φ(q)·φ(k) / (Σ φ(q)·φ(k) + ε).

    Args:
        features: The map φ of queries and keys.
        causal: Whether a token attends only to itself and the tokens before it.
        epsilon: Added to the denominator.
        signed: Whether ε has the sign of the denominator. Features of both signs can make it
            negative.
    """

    def __init__(
        self,
        features: FeatureMap,
        *,
        causal: bool = False,
        epsilon: float = 1e-5,
        signed: bool = False,
    ) -> None:
        super().__init__()
        self.features, self.causal = features, causal
        self.epsilon, self.signed = epsilon, signed

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        epsilon: Scalar | None = None,
    ) -> Tensor:
        """Map queries, keys and values to outputs [B, H, Lq, E] in the dtype of `v`.

        Args:
            q: [B, H, Lq, D].
            k: [B, H, Lk, D]; Lk = Lq if causal.
            v: [B, H, Lk, E].
            mask: Says which keys are attended to, the same for all queries: booleans, or zeros and
                ones, that broadcast to [B, H, 1, Lk].
            epsilon: In place of ε of the denominator and of the features.

        Raises:
            NmnExportError: The mask differs between queries, or a causal form has other numbers of
                queries and keys.
            OptionError: The mask has a wrong shape, or numbers that look like added ones.
        """
        qf, kf = self.features(q, epsilon), self.features(k, epsilon)
        if mask is not None:
            seen = boolean_mask(mask, (*k.shape[:2], q.shape[-2], k.shape[-2]))
            kf = torch.where(_of_keys(seen), kf, 0.0)
        epsilon = self.epsilon if epsilon is None else epsilon
        return attend(qf, kf, v, epsilon, self.signed, self.causal)

    def initial_state(self, v: Tensor) -> LinearState:
        """Return the state before the first token, for values [..., E] like `v`."""
        dtype = compute_dtype(v.dtype)
        k_sum = v.new_zeros(*v.shape[:-1], self.features.num_features, dtype=dtype)
        kv = v.new_zeros(*k_sum.shape, v.shape[-1], dtype=dtype)
        return LinearState(kv, k_sum)

    def step(
        self, q: Tensor, k: Tensor, v: Tensor, state: LinearState, epsilon: Scalar | None = None
    ) -> tuple[Tensor, LinearState]:
        """Return the output of the next token [..., E], and the state after it.

        Args:
            q: [..., D].
            k: [..., D].
            v: [..., E].
            state: The state after the token before.
            epsilon: As in `forward`.
        """
        qf, kf = self.features(q, epsilon), self.features(k, epsilon)
        epsilon = self.epsilon if epsilon is None else epsilon
        return linear_attention_step(qf, kf, v, state, epsilon, self.signed)


def attend(
    qf: Tensor, kf: Tensor, v: Tensor, epsilon: Scalar, signed: bool, causal: bool
) -> Tensor:
    """Return linear attention from features, in the dtype of `v`.

    The causal form is a torch op if it has a kernel for the device. So it is in an export, because
    tracing its formula would fix the number of chunks.
    """
    if not causal:
        return linear_attention(qf, kf, v, epsilon, signed)
    if qf.shape[-2] != kf.shape[-2]:
        raise NmnExportError(
            "Causal linear attention has as many queries as keys",
            got=f"{qf.shape[-2]} queries and {kf.shape[-2]} keys",
            fix="Use step() to continue a sequence.",
        )
    exporting = torch.compiler.is_exporting()
    if exporting and qf.dtype != torch.float32:
        raise NmnExportError(
            "Linear attention is exported in float32, float16 or bfloat16",
            got=qf.dtype,
            fix="Export with dtype=, which converts the whole model.",
        )
    if isinstance(epsilon, Tensor) or not (exporting or has_kernels(v)):
        return causal_linear_attention(qf, kf, v, epsilon, signed)
    out = torch.ops.nmn.causal_linear_attention(qf, kf, v.to(qf.dtype), epsilon, signed)
    return saturate(out, v.dtype)


def _of_keys(seen: Tensor) -> Tensor:
    """Return a mask of keys [B, H, 1, Lk] as [B, H, Lk, 1], or raise `NmnExportError`."""
    if seen.shape[-2] != 1:
        raise NmnExportError(
            "The mask of linear attention is the same for all queries",
            got=f"shape {tuple(seen.shape)}",
            fix="Give it shape (batch, 1, 1, keys). Use causal=True in place of a causal mask. "
            "Other masks need exact attention.",
        )
    return seen.mT


# Upstream's functions, whose tensors are [batch, length, heads, features].


def maclaurin_features(
    x: Tensor, params: Mapping[str, Any], normalize: bool = True, epsilon: float = 1e-6
) -> Tensor:
    """Return `MaclaurinFeatures` of x [..., D], in the order of the projection."""
    features = MaclaurinFeatures(params, normalize=normalize, epsilon=epsilon)
    sorted_features: Tensor = features(x)
    return sorted_features[..., features.order().argsort()]


def radial_features(
    x: Tensor, params: Mapping[str, Any], normalize: bool = True, epsilon: float = 1e-6
) -> Tensor:
    """Return `RadialFeatures` of x [..., D], in upstream's order."""
    features: Tensor = RadialFeatures(params, normalize=normalize, epsilon=epsilon)(x)
    return features


def linear_attention_readout(
    qf: Tensor, kf: Tensor, v: Tensor, causal: bool = False, epsilon: float = 1e-5
) -> Tensor:
    """Return attention [B, Lq, H, E] from features [B, L, H, M] and values [B, Lk, H, E]."""
    qf, kf, v = (t.transpose(1, 2) for t in (qf, kf, v))
    return attend(qf, kf, v, epsilon, False, causal).transpose(1, 2)


def maclaurin_yat_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    params: Mapping[str, Any],
    causal: bool = False,
    epsilon: float = 1e-5,
) -> Tensor:
    """Return MAY attention [B, Lq, H, E] of queries and keys [B, L, H, D]."""
    qf, kf = (maclaurin_features(t, params) for t in (query, key))
    return linear_attention_readout(qf, kf, value, causal, epsilon)


def radial_yat_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    params: Mapping[str, Any],
    causal: bool = False,
    epsilon: float = 1e-5,
) -> Tensor:
    """Return RAY attention [B, Lq, H, E] of queries and keys [B, L, H, D]."""
    qf, kf = (radial_features(t, params) for t in (query, key))
    return linear_attention_readout(qf, kf, value, causal, epsilon)
