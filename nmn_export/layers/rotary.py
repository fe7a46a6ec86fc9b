"""Rotary ⵟ-attention: positions are rotations of queries and keys; exact, or in linear time."""

import copy
import math

import torch
from torch import Tensor

from nmn_export.errors import NmnExportError, OptionError
from nmn_export.layers.attention_functions import SOFTERMAX_GUARD, attend
from nmn_export.layers.attention_heads import any_head
from nmn_export.layers.attention_mask import added_to_scores, boolean_mask, visible_keys
from nmn_export.layers.folded import Folded
from nmn_export.layers.linear_attention import LinearYatAttention
from nmn_export.layers.options import check_scalars
from nmn_export.layers.performer import performer
from nmn_export.layers.rotary_heads import RotaryHeads, RotaryState
from nmn_export.layers.scalars import YatScalars
from nmn_export.ops.linear_attention import LinearState
from nmn_export.ops.yat import Scalar, compute_dtype

NORMALIZATIONS = ("softmax", "softermax", "l1")


class RotaryYatAttention(RotaryHeads, YatScalars, Folded):
    """Self-attention with rotary positions and ⵟ-product scores.

    Exact attention normalises α ⟨q, k⟩² / ((‖q − k‖² + ε) √D) over the keys. A performer takes
    features φ instead, with φ(q)·φ(k) close to the ⵟ-product of unit vectors, and is linear in the
    length. Parameters have the names of upstream's Flax NNX layer. Two things differ: `causal`
    holds for exact attention too, and positions beyond `max_seq_len` are refused.

    Args:
        embed_dim: E, the features of a token.
        num_heads: H. A head has D = E / H features, an even number.
        max_seq_len: The number of positions.
        theta: Base of the rotation frequencies.
        dtype: Dtype that inputs and parameters are cast to; by default that of the input.
        param_dtype: Dtype that the parameters are stored in; by default `dtype`, or float32.
        use_bias: Whether the projections have a bias.
        normalize_qk: Whether queries and keys pass a LayerNorm per head, with a scale and no bias.
        use_out_proj: Whether the merged heads pass a projection.
        epsilon: ε > 0, or where a learned ε starts.
        use_softermax: Use `normalization="softermax"`, unless it is "l1".
        power: p of "softermax".
        use_performer: Use linear attention, whatever the normalization.
        performer_kind: "slay", "maclaurin" (MAY) or "radial" (RAY).
        num_anchor_features: Of "slay".
        num_prf_features: Of "slay".
        num_quad_nodes: Of "slay".
        performer_num_features: Of "maclaurin".
        performer_bias: b of the kernel of "maclaurin" and "radial".
        performer_nmax: Largest degree of "maclaurin".
        performer_sketch_m: Of "radial".
        performer_num_radial: Of "radial".
        performer_radial_dim: Of "radial".
        causal: Whether a token attends only to itself and the tokens before it.
        performer_normalize: Of "slay": whether vectors are divided by their norms twice.
        use_alpha: Learn α. That of a performer multiplies the output.
        constant_alpha: Multiplies the output by this number instead; `True` stands for √2.
        learnable_epsilon: Learn ε.
        normalization: "softmax"; "softermax", weights z^p / (1e-12 + Σ z^p); or "l1", weights
            z / (ε + Σ z).
        seed: Of the random features; by default drawn from PyTorch's generator.
        device: Device of the parameters.

    Raises:
        OptionError: An option has a value that it cannot have.
    """

    performer: LinearYatAttention | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        max_seq_len: int = 2048,
        *,
        theta: float = 10000.0,
        dtype: torch.dtype | None = None,
        param_dtype: torch.dtype | None = None,
        use_bias: bool = False,
        normalize_qk: bool = False,
        use_out_proj: bool = True,
        epsilon: float = 1e-5,
        use_softermax: bool = False,
        power: float = 1.0,
        use_performer: bool = False,
        performer_kind: str = "slay",
        num_anchor_features: int = 16,
        num_prf_features: int = 8,
        num_quad_nodes: int = 1,
        performer_num_features: int = 256,
        performer_bias: float = 1.0,
        performer_nmax: int = 40,
        performer_sketch_m: int = 128,
        performer_num_radial: int = 8,
        performer_radial_dim: int = 64,
        causal: bool = False,
        performer_normalize: bool = True,
        use_alpha: bool = True,
        constant_alpha: float | bool | None = None,
        learnable_epsilon: bool = False,
        normalization: str = "softmax",
        seed: int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        storage = param_dtype or dtype or torch.get_default_dtype()
        check_scalars(constant_alpha, epsilon, learnable_epsilon, compute_dtype(storage))
        _check_options(normalization, power)
        self.dtype, self.causal, self.power = dtype, causal, power
        if use_softermax and normalization != "l1":
            normalization = "softermax"
        self.normalization = normalization
        self._folded: tuple[float, float, float] | None = None
        self._add_heads(
            (embed_dim, num_heads, max_seq_len, theta),
            use_bias=use_bias,
            use_out_proj=use_out_proj,
            normalize_qk=normalize_qk,
            storage=storage,
            device=device,
        )
        self._add_scalars(
            use_alpha=use_alpha,
            constant_alpha=constant_alpha,
            epsilon=epsilon,
            learnable_epsilon=learnable_epsilon,
            device=device,
            storage=storage,
        )
        self._reset_scalars()
        self.performer_kind = performer_kind if use_performer else None
        self.performer = None
        if use_performer:
            self.performer = performer(
                performer_kind,
                self.head_dim,
                causal=causal,
                normalize=performer_normalize,
                epsilon=epsilon,
                seed=int(torch.randint(2**62, ())) if seed is None else seed,
                device=device,
                num_anchor_features=num_anchor_features,
                num_prf_features=num_prf_features,
                num_quad_nodes=num_quad_nodes,
                num_features=performer_num_features,
                bias=performer_bias,
                nmax=performer_nmax,
                sketch_m=performer_sketch_m,
                num_radial=performer_num_radial,
                radial_dim=performer_radial_dim,
            )

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        deterministic: bool | None = None,
        position_offset: int | Tensor = 0,
    ) -> Tensor:
        """Map tokens [B, L, E] to [B, L, E].

        Args:
            x: Of any floating dtype.
            mask: Says which keys a query attends to: booleans, or zeros and ones, that broadcast to
                [B, H, L, L]. That of a performer is the same for all queries: [B, 1, 1, L]. A token
                that attends to no key in any head becomes zero, without the last bias.
            deterministic: Has no effect; the layer has no dropout.
            position_offset: Position of the first token: a number, or a tensor of one element.

        Raises:
            NmnExportError: The input or the mask does not fit, or there are too many tokens.
            OptionError: The mask has a wrong shape or dtype.
        """
        del deterministic
        x = self._checked(x, 3)
        batch, length, _ = x.shape
        shape = (batch, self.num_heads, length, length)
        q, k, v = self._heads(x, self.rotary.positions(position_offset, length))
        visible = None
        if self.performer is None:
            added = added_to_scores(mask, None, None, shape, v.dtype)
            out = self._exact(q.to(v.dtype), k.to(v.dtype), v, added)
            if added is not None:
                visible = visible_keys(added, self.causal, shape)
        else:
            out = self.performer(q, k, v, mask, self._performer_epsilon())
            if mask is not None:
                visible = boolean_mask(mask, shape)
        out = self._merged(out, self._scalars()[2])
        return out if visible is None else out.where(any_head(visible), 0)

    def initial_state(self, batch: int) -> RotaryState:
        """Return the state of `batch` sequences without tokens.

        Raises:
            NmnExportError: The layer is not a causal performer.
        """
        v = self.v_proj.weight.new_empty(batch, self.num_heads, self.head_dim)
        position = torch.zeros(batch, dtype=torch.int64, device=v.device)
        return RotaryState(*self._causal_performer().initial_state(v), position)

    def step(self, x: Tensor, state: RotaryState) -> tuple[Tensor, RotaryState]:
        """Return the output of the next token, and the state after it.

        It is what `forward` returns for that token of the whole sequence, at a constant cost.

        Args:
            x: The token of every sequence, [B, E].
            state: The state after the token before.

        Raises:
            NmnExportError: The layer is not a causal performer, or the input does not fit.
        """
        x = self._checked(x, 2).unsqueeze(1)
        q, k, v = (t.squeeze(2) for t in self._heads(x, state.position.reshape(-1, 1, 1)))
        out, sums = self._causal_performer().step(
            q, k, v, LinearState(state.kv, state.k_sum), self._performer_epsilon()
        )
        out = self._merged(out.unsqueeze(2), self._scalars()[2]).squeeze(1)
        return out, RotaryState(*sums, state.position + 1)

    def fold(self) -> "RotaryYatAttention":
        """Return the layer with numbers in place of a learned α and ε."""
        folded = copy.copy(self)
        epsilon, inside, outside = self._scalars()
        folded._folded = (_number(epsilon), _number(inside), _number(outside))
        folded._parameters = {"alpha": None, "epsilon_param": None}
        return folded

    def _scalars(self) -> tuple[Scalar, Scalar, Scalar]:
        """Return ε, the multiplier of the scores, and that of the output."""
        if self._folded is not None:
            return self._folded
        epsilon, alpha = self.effective_epsilon(), self.effective_alpha()
        scores = self.constant_alpha is None and self.performer is None
        return (epsilon, alpha, 1.0) if scores else (epsilon, 1.0, alpha)

    def _performer_epsilon(self) -> Scalar | None:
        """Return ε where it is a part of the features, and `None` where they have their own."""
        return self._scalars()[0] if self.performer_kind == "slay" else None

    def _causal_performer(self) -> LinearYatAttention:
        if self.performer is None or not self.causal:
            raise NmnExportError(
                "Only a causal performer has a state",
                got="exact attention" if self.performer is None else "causal=False",
                fix="Build the layer with use_performer=True and causal=True.",
            )
        return self.performer

    def _exact(self, q: Tensor, k: Tensor, v: Tensor, added: Tensor | None) -> Tensor:
        """Return exact attention [B, H, L, D], by one op if the layer is folded."""
        epsilon, alpha, _ = self._scalars()
        guard: Scalar = SOFTERMAX_GUARD
        if self.normalization == "l1":
            guard = epsilon if torch.is_grad_enabled() else _number(epsilon)
        power = {"softmax": 0.0, "softermax": self.power, "l1": 1.0}[self.normalization]
        scale = alpha / math.sqrt(self.head_dim)
        attention = attend if self._folded is None else torch.ops.nmn.yat_attention
        out: Tensor = attention(q, k, v, added, epsilon, scale, self.causal, False, power, guard)
        return out

    def extra_repr(self) -> str:
        """Return the options of the layer, as PyTorch's own layers print theirs."""
        kind = self.performer_kind or self.normalization
        sizes = f"embed_dim={self.embed_dim}, num_heads={self.num_heads}"
        return f"{sizes}, {kind}, causal={self.causal}, epsilon={self.epsilon}"


def _number(scalar: Scalar) -> float:
    return scalar.item() if isinstance(scalar, Tensor) else scalar


def _check_options(normalization: str, power: float) -> None:
    if normalization not in NORMALIZATIONS:
        raise OptionError(
            f"normalization must be one of {', '.join(NORMALIZATIONS)}",
            got=repr(normalization),
            fix="Choose one.",
        )
    if not (math.isfinite(power) and power > 0):
        raise OptionError("power must be positive and finite", got=power, fix="Use 1, say.")
