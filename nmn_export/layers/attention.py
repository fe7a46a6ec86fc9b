"""MultiHeadYatAttention, attention whose scores are ⵟ-products of queries and keys."""

import math

import torch
from torch import Tensor

from nmn_export.errors import OptionError
from nmn_export.layers.attention_functions import SOFTERMAX_GUARD, attend, check_rate
from nmn_export.layers.attention_heads import AttentionHeads, Projection
from nmn_export.layers.folded_attention import FoldedYatAttention
from nmn_export.layers.options import check_scalars
from nmn_export.layers.scalars import YatScalars
from nmn_export.ops.yat import Scalar, compute_dtype


class MultiHeadYatAttention(AttentionHeads, YatScalars):
    """softmax(α ⟨q, k⟩² / (√D (‖q − k‖² + ε)) + mask) v in each head, with linear projections.

    Args:
        embed_dim: Size of the last axis of inputs and output.
        num_heads: H, which divides `embed_dim`; D = embed_dim / H.
        dropout: In training, drop weights out at this rate.
        bias: Add a bias in the projections.
        use_alpha: Learn α (`True`), or leave it out.
        constant_alpha: Fix α to this number instead; `True` stands for √2, `False` for none.
        normalize_qk: Divide queries and keys of each head by their norms. The formula stays.
        spherical: Divide them by √(‖·‖² + ε), and use the distance max(2 − 2⟨q, k⟩, 0).
        use_out_proj: Project the joined heads.
        epsilon: ε > 0.
        device: Device of the parameters.
        dtype: Dtype that inputs and parameters are cast to; by default that of the input.
        param_dtype: Dtype that parameters are stored in; by default `dtype`, or else PyTorch's
            default.
        is_causal: Query i attends to keys up to i + Lk − Lq only: the last query sees all keys.
        num_key_heads: G, which divides H: each of G heads of keys and values serves H / G heads of
            queries in a row. H by default.
        use_softermax: Use z^p / (1e-12 + Σ z^p) as weights instead of the softmax of scores z.
        power: p > 0 of `use_softermax`.
        learnable_epsilon: Learn ε, which starts at `epsilon`.

    Raises:
        OptionError: An option has a value that it cannot have.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        use_alpha: bool = True,
        constant_alpha: float | bool | None = None,
        normalize_qk: bool = False,
        spherical: bool = False,
        use_out_proj: bool = True,
        epsilon: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        param_dtype: torch.dtype | None = None,
        *,
        is_causal: bool = False,
        num_key_heads: int | None = None,
        use_softermax: bool = False,
        power: float = 1.0,
        learnable_epsilon: bool = False,
    ) -> None:
        super().__init__()
        key_heads = num_heads if num_key_heads is None else num_key_heads
        storage = param_dtype or dtype or torch.get_default_dtype()
        _check_sizes(embed_dim, num_heads, key_heads)
        check_rate("dropout", dropout)
        check_scalars(constant_alpha, epsilon, learnable_epsilon, compute_dtype(storage))
        if not (math.isfinite(power) and power > 0):
            raise OptionError("power must be positive and finite", got=power, fix="Use 1, say.")
        self.embed_dim, self.num_heads, self.num_key_heads = embed_dim, num_heads, key_heads
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.normalize_qk, self.spherical = normalize_qk, spherical
        self.use_out_proj = use_out_proj
        self.is_causal = is_causal
        self.use_softermax, self.power = use_softermax, power
        self.dtype, self.param_dtype = dtype, storage

        def projection(out: int) -> Projection:
            return Projection(embed_dim, out, bias, device, storage)

        self.q_proj = projection(embed_dim)
        self.k_proj = projection(key_heads * self.head_dim)
        self.v_proj = projection(key_heads * self.head_dim)
        self.out_proj = projection(embed_dim) if use_out_proj else None
        self._add_scalars(
            use_alpha=use_alpha,
            constant_alpha=constant_alpha,
            epsilon=epsilon,
            learnable_epsilon=learnable_epsilon,
            device=device,
            storage=storage,
        )
        self._reset_scalars()

    @property
    def compute_dtype(self) -> torch.dtype | None:
        """`dtype` under the name that upstream's layer gives it."""
        return self.dtype

    def reset_parameters(self) -> None:
        """Initialise the projections as `nn.Linear` does, α with one and a learned ε."""
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            if isinstance(projection, Projection):
                projection.reset_parameters()
        self._reset_scalars()

    def effective_scale(self) -> Scalar:
        """Return α / √D."""
        return self.effective_alpha() / math.sqrt(self.head_dim)

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
        rate = self.dropout if self.training and not deterministic else 0.0
        power = self.power if self.use_softermax else 0.0
        options = (self.is_causal, self.spherical, power, SOFTERMAX_GUARD)
        return attend(
            q, k, v, mask, self.effective_epsilon(), self.effective_scale(), *options, dropout=rate
        )

    def fold(self) -> FoldedYatAttention:
        """Return the layer as inference needs it: projections around one op."""
        with torch.no_grad():
            epsilon, scale = float(self.effective_epsilon()), float(self.effective_scale())
        return FoldedYatAttention(
            self,
            epsilon=epsilon,
            scale=scale,
            spherical=self.spherical,
            power=self.power if self.use_softermax else 0.0,
            guard=SOFTERMAX_GUARD,
        )

    def extra_repr(self) -> str:
        """Return the options that have other values than the defaults."""
        others = {
            "num_key_heads": (self.num_key_heads, self.num_heads),
            "dropout": (self.dropout, 0.0),
            "alpha": (self.use_alpha, True),
            "constant_alpha": (self.constant_alpha, None),
            "normalize_qk": (self.normalize_qk, False),
            "spherical": (self.spherical, False),
            "is_causal": (self.is_causal, False),
            "power": (self.power if self.use_softermax else None, None),
            "epsilon": (self.epsilon, None),
            "learnable_epsilon": (self.learnable_epsilon, False),
            "dtype": (self.dtype, None),
        }
        shown = [f"{name}={value}" for name, (value, default) in others.items() if value != default]
        return ", ".join([f"embed_dim={self.embed_dim}, num_heads={self.num_heads}", *shown])


def _check_sizes(embed_dim: int, num_heads: int, num_key_heads: int) -> None:
    sizes = {"embed_dim": embed_dim, "num_heads": num_heads, "num_key_heads": num_key_heads}
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise OptionError(
                f"{name} must be a positive integer", got=repr(size), fix="Use 1, 2, …"
            )
    for whole, part in (("embed_dim", "num_heads"), ("num_heads", "num_key_heads")):
        if sizes[whole] % sizes[part]:
            raise OptionError(
                f"{whole} must be divisible by {part}",
                got=f"{whole}={sizes[whole]}, {part}={sizes[part]}",
                fix="Change one of them.",
            )
