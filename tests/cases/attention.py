"""Cases of YatAttention."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tests.cases.common import NOISE, Values, generator

Mask = Literal["none", "keys", "pairs", "heads", "hidden-rows", "additive"]
"""No mask; boolean ones over keys, over pairs of a query and a key, and per head as well; one that
hides all keys from some queries; finite numbers and −∞."""


@dataclass(frozen=True)
class AttentionCase:
    """One call of YatAttention.

    Attributes:
        id: What is special about it.
        heads: H, the heads of the queries.
        key_heads: G, the heads of keys and values; `heads` if 0.
        queries: Lq.
        keys: Lk.
        features: D.
        value_features: E; `features` if 0.
        scale: The multiplier of the ⵟ-product.
        size: Typical size of queries, keys and values.
    """

    id: str
    batch: int = 2
    heads: int = 2
    key_heads: int = 0
    queries: int = 5
    keys: int = 5
    features: int = 8
    value_features: int = 0
    mask: Mask = "none"
    epsilon: float = 1e-5
    scale: float = 0.35
    is_causal: bool = False
    spherical: bool = False
    power: float = 0.0
    guard: float = 1e-12
    values: Values = "normal"
    size: float = 1.0

    def tensors(
        self, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Draw q, k, v and the mask with a fixed seed."""
        random = generator(self.id)
        groups = self.key_heads or self.heads

        def draw(*shape: int) -> Tensor:
            return self.size * torch.randn(self.batch, *shape, generator=random)

        q = draw(self.heads, self.queries, self.features)
        k = draw(groups, self.keys, self.features)
        v = draw(groups, self.keys, self.value_features or self.features)
        if self.values == "zeros":
            q[:, :, 0] = 0
            k[:, :, -1] = 0
        elif self.values != "normal":
            rows = torch.arange(self.keys) % self.queries
            noise = NOISE * k if self.values == "near" else 0
            k = q.to(dtype).float()[:, :: self.heads // groups, rows] + noise
        mask = self._mask(random)
        return q.to(dtype), k.to(dtype), v.to(dtype), None if mask is None else mask.to(dtype)

    def arguments(self, dtype: torch.dtype = torch.float32) -> tuple[object, ...]:
        """Return the arguments of `nmn::yat_attention`."""
        options = (self.is_causal, self.spherical, self.power, self.guard)
        return (*self.tensors(dtype), self.epsilon, self.scale, *options)

    def _mask(self, random: torch.Generator) -> Tensor | None:
        shapes = {
            "keys": (self.batch, 1, 1, self.keys),
            "pairs": (self.queries, self.keys),
            "heads": (self.batch, self.heads, self.queries, self.keys),
            "hidden-rows": (self.batch, 1, self.queries, self.keys),
            "additive": (1, self.heads, self.queries, self.keys),
        }
        if self.mask == "none":
            return None
        shape = shapes[self.mask]
        seen = torch.rand(shape, generator=random) < 0.6
        if self.mask == "hidden-rows":
            seen[..., 1, :] = False
            seen[0] = False
        else:
            seen[..., 0] = True
        added = torch.randn(shape, generator=random) if self.mask == "additive" else torch.zeros(())
        return torch.where(seen, added, float("-inf"))


ATTENTION_CASES = (
    AttentionCase("plain"),
    AttentionCase(
        "all-sizes-one", batch=1, heads=1, queries=1, keys=1, features=1, value_features=1
    ),
    AttentionCase("odd-sizes", heads=3, queries=7, keys=11, features=13, value_features=5),
    AttentionCase("one-past-a-power-of-two", queries=17, keys=33, features=65, batch=1),
    AttentionCase("many-keys", batch=1, heads=1, queries=3, keys=150, features=16),
    AttentionCase("one-query", queries=1, keys=70, features=32, batch=1),
    AttentionCase("grouped-keys", heads=6, key_heads=2, keys=9),
    AttentionCase("one-key-head", heads=4, key_heads=1, is_causal=True),
    AttentionCase("causal", is_causal=True, queries=40, keys=40, batch=1),
    AttentionCase("causal-with-earlier-keys", is_causal=True, queries=3, keys=19),
    AttentionCase("causal-with-fewer-keys", is_causal=True, queries=9, keys=4),
    AttentionCase("causal-one-query", is_causal=True, queries=1, keys=6),
    AttentionCase("mask-of-keys", mask="keys", keys=21),
    AttentionCase("mask-of-pairs", mask="pairs", queries=6, keys=18),
    AttentionCase("mask-per-head", mask="heads", heads=3, keys=7),
    AttentionCase("mask-additive", mask="additive", keys=9),
    AttentionCase("hidden-rows", mask="hidden-rows", keys=8),
    AttentionCase("causal-and-mask", mask="keys", is_causal=True, queries=12, keys=12),
    AttentionCase("spherical", spherical=True),
    AttentionCase("spherical-near", spherical=True, values="near", features=32, is_causal=True),
    AttentionCase("spherical-zeros", spherical=True, values="zeros"),
    AttentionCase("softermax", power=1.0),
    AttentionCase("softermax-cubed", power=3.0, mask="pairs", queries=6, keys=18),
    AttentionCase("softermax-fractional-causal", power=1.5, is_causal=True, queries=20, keys=20),
    AttentionCase("softermax-hidden-rows", power=2.0, mask="hidden-rows"),
    AttentionCase("l1", power=1.0, guard=1e-5, is_causal=True),
    AttentionCase("scale-zero", scale=0.0),
    AttentionCase("scale-negative", scale=-0.5),
    AttentionCase("epsilon-two", epsilon=2.0, scale=1.3),
    AttentionCase("near", values="near", features=64, epsilon=0.1),
    AttentionCase("near-small-epsilon", values="near", features=32),
    AttentionCase(
        "near-competing-keys", values="near", features=32, keys=15, size=0.006, epsilon=1e-9
    ),
    AttentionCase("equal", values="equal", features=16, epsilon=0.01),
    AttentionCase("zeros", values="zeros"),
    AttentionCase("large", size=100.0, features=32),
    AttentionCase("tiny", size=1e-3),
    AttentionCase("vanishing", size=1e-15),
)


def attention_case(case_id: str) -> AttentionCase:
    """Return one case of the table."""
    return next(case for case in ATTENTION_CASES if case.id == case_id)
