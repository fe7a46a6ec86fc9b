"""The shapes of YatAttention in the GPU benchmark. Needs no PyTorch."""

from dataclasses import dataclass

TIMED_MODES = ("float16", "bfloat16")
"""Those that all contestants have. float32 is only checked."""


@dataclass(frozen=True)
class AttentionShape:
    """Sizes of queries [B, H, Lq, D] and of keys and values [B, G, Lk, D].

    Attributes:
        batch: B.
        heads: H.
        key_heads: G.
        queries: Lq.
        keys: Lk.
        features: D.
        is_causal: Whether a query attends to the keys up to its own only.
    """

    batch: int
    heads: int
    key_heads: int
    queries: int
    keys: int
    features: int
    is_causal: bool = False

    @property
    def name(self) -> str:
        """Name in records and tables."""
        heads = f"h{self.heads}" + f"/{self.key_heads}" * (self.heads != self.key_heads)
        kind = "causal " * self.is_causal
        sizes = f"d{self.features} {heads} {self.queries}×{self.keys} b{self.batch}"
        return f"attention {kind}{sizes}"

    @property
    def target(self) -> float:
        """The design's goal for the ratio of fused to `scaled_dot_product_attention`."""
        return 1.03 if self.queries == 1 else 1.4

    @property
    def scores(self) -> int:
        """Number of scores, without those that the causal mask hides."""
        hidden = self.queries * (self.queries - 1) // 2 if self.is_causal else 0
        return self.batch * self.heads * (self.queries * self.keys - hidden)

    @property
    def flops(self) -> int:
        """Floating-point operations of the two matrix products."""
        return 4 * self.scores * self.features


def _prompt(length: int, features: int) -> AttentionShape:
    """Return a prompt with 16384 tokens and 2048 features in all, as in published measurements."""
    heads = 2048 // features
    return AttentionShape(16384 // length, heads, heads, length, length, features, True)


ATTENTION_SHAPES = (
    *(_prompt(length, features) for features in (64, 128) for length in (1024, 4096, 16384)),
    *(
        AttentionShape(batch, 12, 12, 1, length, 64)
        for batch in (8, 1)
        for length in (4096, 16384, 65536, 131072)
    ),
    *(AttentionShape(8, 32, 8, 1, length, 128) for length in (4096, 32768)),
)
"""Timed shapes: prompts, and the next token after 4 k to 128 k."""

VALUABLE_ATTENTION_SHAPES = (_prompt(4096, 64), AttentionShape(8, 12, 12, 1, 16384, 64))
"""Those that are timed first."""

CHECKED_ATTENTION_SHAPES = (
    AttentionShape(4, 16, 16, 512, 512, 64, True),
    AttentionShape(4, 16, 4, 300, 430, 128, True),
    AttentionShape(8, 16, 16, 200, 200, 256),
    AttentionShape(2, 12, 12, 1, 5000, 64),
    AttentionShape(3, 8, 2, 2, 1111, 128, True),
    AttentionShape(2, 3, 3, 70, 90, 40),
)
"""Shapes compared with float64. They are small, and cover every kernel and odd size."""

TINY_ATTENTION_SHAPES = (
    AttentionShape(1, 2, 2, 20, 20, 16, True),
    AttentionShape(1, 4, 2, 1, 70, 16),
)
"""Shapes of a dry run."""
