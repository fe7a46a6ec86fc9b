"""Linear attention: the weight of a key is an inner product of features, so sums are shared.

With features φ(q) and φ(k) of length M, a query reads two sums over the keys that it attends to:

    out = φ(q) · S / (φ(q) · z + guard),    S = Σ φ(k) ⊗ v  [M, E],    z = Σ φ(k)  [M].

Time and memory are linear in the length. It is not an op of `ai.nmn`: it is exported as standard
ops. Its features are those of `nmn_export.layers.feature_maps`.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nmn_export.ops.autograd import register_autograd
from nmn_export.ops.yat import Scalar, compute_dtype, saturate

CHUNK = 64
"""Tokens per chunk of the causal form. The sums before a chunk take M · E / CHUNK numbers per
token: about as many as the features, if a head has 64 value features."""


class LinearState(NamedTuple):
    """The sums over all tokens so far, of a size that does not depend on their number.

    Attributes:
        kv: [..., M, E], the sum of φ(k) ⊗ v, float32 or wider.
        k_sum: [..., M], the sum of φ(k), float32 or wider.
    """

    kv: Tensor
    k_sum: Tensor


def linear_attention(
    q_features: Tensor,
    k_features: Tensor,
    v: Tensor,
    epsilon: Scalar = 1e-5,
    signed: bool = False,
) -> Tensor:
    """Return attention to all keys, by two matrix products.

    Args:
        q_features: [..., Lq, M], of any floating dtype. float16 and bfloat16 are computed in
            float32, and the result saturates.
        k_features: [..., Lk, M]. Zeros hide a key.
        v: Values, [..., Lk, E].
        epsilon: Added to the denominator.
        signed: Whether ε has the sign of the denominator, which features of both signs can make
            negative.

    Returns:
        [..., Lq, E] in the dtype of `v`.
    """
    qf, kf, values = _wide(q_features, k_features, v)
    state = state_after(kf, values)
    return saturate(_read(qf, state, epsilon, signed), v.dtype)


def state_after(k_features: Tensor, v: Tensor) -> LinearState:
    """Return the sums over all tokens of `k_features` [..., L, M] and `v` [..., L, E]."""
    _, kf, values = _wide(k_features, k_features, v)
    length_axis = kf.ndim - 2  # with -2, ONNX Runtime does not reduce an empty batch
    return LinearState(kf.mT @ values, kf.sum(length_axis))


def causal_linear_attention(
    q_features: Tensor,
    k_features: Tensor,
    v: Tensor,
    epsilon: Scalar = 1e-5,
    signed: bool = False,
) -> Tensor:
    """Return attention of every token to itself and the tokens before it.

    The length is cut into chunks. Within a chunk, weights of later tokens are replaced by zeros.
    The tokens before a chunk are in two sums, which are added from chunk to chunk. So no tensor is
    larger than [..., L / CHUNK, M, E], and a later token takes part in no sum that an earlier one
    reads: its value does not change one bit there, as long as it is finite.

    The arguments are those of `linear_attention`, with as many queries as keys.
    """
    length, dtype = v.shape[-2], v.dtype
    count = max(1, -(-length // CHUNK))
    pads = (0, 0, 0, count * CHUNK - length)
    qf, kf, values = (
        F.pad(t, pads).reshape(*t.shape[:-2], count, CHUNK, t.shape[-1])
        for t in _wide(q_features, k_features, v)
    )
    weights = (qf @ kf.mT).tril()
    chunks = state_after(kf, values)
    before = LinearState(sum_before(chunks.kv, -3), sum_before(chunks.k_sum, -2))
    numerator = weights @ values + qf @ before.kv
    denominator = weights.sum(-1, keepdim=True) + qf @ before.k_sum.unsqueeze(-1)
    out = _divide(numerator, denominator, epsilon, signed)
    return saturate(out.flatten(-3, -2)[..., :length, :], dtype)


def linear_attention_step(
    q_features: Tensor,
    k_features: Tensor,
    v: Tensor,
    state: LinearState,
    epsilon: Scalar = 1e-5,
    signed: bool = False,
) -> tuple[Tensor, LinearState]:
    """Add one token to the sums, and return what it attends to: itself and all tokens before it.

    Args:
        q_features: [..., M].
        k_features: [..., M].
        v: [..., E].
        state: The sums over the tokens before.
        epsilon: As in `linear_attention`.
        signed: As in `linear_attention`.

    Returns:
        The output [..., E] in the dtype of `v`, and the new state in the dtype of `state`.
    """
    qf, kf, values = (t.to(state.kv.dtype) for t in (q_features, k_features, v))
    state = LinearState(
        state.kv + kf.unsqueeze(-1) * values.unsqueeze(-2),
        state.k_sum + kf,
    )
    out = _read(qf.unsqueeze(-2), state, epsilon, signed).squeeze(-2)
    return saturate(out, v.dtype), state


def exact_linear_attention(
    q_features: Tensor,
    k_features: Tensor,
    v: Tensor,
    epsilon: float,
    signed: bool,
    causal: bool,
) -> Tensor:
    """Return the result in float64, from all weights [..., Lq, Lk]."""
    weights = q_features.double() @ k_features.double().mT
    if causal:
        weights = weights.tril()
    return _divide(weights @ v.double(), weights.sum(-1, keepdim=True), epsilon, signed)


def _wide(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return tensors of one dtype that is at least float32."""
    dtype = compute_dtype(tensors[0].dtype)
    return tuple(t.to(dtype) for t in tensors)


def _read(qf: Tensor, state: LinearState, epsilon: Scalar, signed: bool) -> Tensor:
    """Return what queries [..., L, M] read from the sums."""
    return _divide(qf @ state.kv, qf @ state.k_sum.unsqueeze(-1), epsilon, signed)


def as_vector(epsilon: Scalar, like: Tensor) -> Tensor:
    """Return a number as a tensor of one element.

    PyTorch's exporter drops an addition of a number below 1e-8, but not that of a vector.
    """
    return epsilon if isinstance(epsilon, Tensor) else like.new_full((1,), epsilon)


def _divide(numerator: Tensor, denominator: Tensor, epsilon: Scalar, signed: bool) -> Tensor:
    epsilon = as_vector(epsilon, denominator)
    guarded = denominator + epsilon
    if signed:
        guarded = torch.where(denominator < 0, denominator - epsilon, guarded)
    return numerator / guarded


def sum_before(sums: Tensor, axis: int) -> Tensor:
    """Return the sum of all earlier entries along an axis.

    The last sum minus its own entry would be the same number, but not the same bits: it would
    depend on the rounding of that entry.
    """
    first = torch.zeros_like(sums.narrow(axis, 0, 1))
    return torch.cat((first, sums.narrow(axis, 0, sums.shape[axis] - 1)), axis).cumsum(axis)


@torch.library.custom_op("nmn::causal_linear_attention", mutates_args=())
def _causal_linear_attention_op(
    q_features: Tensor, k_features: Tensor, v: Tensor, epsilon: float, signed: bool
) -> Tensor:
    return causal_linear_attention(q_features, k_features, v, epsilon, signed).contiguous()


@_causal_linear_attention_op.register_fake
def _(q_features: Tensor, k_features: Tensor, v: Tensor, epsilon: float, signed: bool) -> Tensor:
    del epsilon, signed
    # The op cannot have a dynamic number of features. Without this check, tracing would accept one.
    if q_features.shape[-1] != k_features.shape[-1]:
        raise ValueError(f"q has {q_features.shape[-1]} features, and k {k_features.shape[-1]}")
    if not q_features.shape[-2] == k_features.shape[-2] == v.shape[-2]:
        raise ValueError("causal attention has as many queries as keys and values")
    return v.new_empty(v.shape)


register_autograd(_causal_linear_attention_op, causal_linear_attention)
