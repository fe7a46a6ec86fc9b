"""Cases of YatEmbed.attend, which all its tests share."""

import zlib
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nmn_export.layers import YatEmbed
from tests.cases import NOISE
from tests.enclosure import Parts


@dataclass(frozen=True)
class EmbedCase:
    """One call of `YatEmbed.attend`.

    Attributes:
        id: What is special about it.
        batch: Leading axes of the query.
        values: Queries that are random, within 1 % of rows, rows themselves, or zero.
        query_norm: Typical norm of a query.
        row_norm: Typical norm of a row.
    """

    id: str
    batch: tuple[int, ...] = (4,)
    vocabulary: int = 7
    features: int = 8
    epsilon: float = 1e-5
    alpha: float = 1.0
    spherical: bool = False
    values: Literal["normal", "near", "equal", "zeros"] = "normal"
    query_norm: float = 1.0
    row_norm: float = 1.0

    def layer(self, dtype: torch.dtype = torch.float32) -> YatEmbed:
        """Return the layer, with a table drawn with a fixed seed."""
        layer = YatEmbed(
            self.vocabulary,
            self.features,
            constant_alpha=self.alpha,
            epsilon=self.epsilon,
            spherical=self.spherical,
            dtype=dtype,
        )
        with torch.no_grad():
            layer.embedding.copy_(self._draw("table", self.vocabulary, self.row_norm))
            if self.values == "zeros":
                layer.embedding[-1] = 0
        return layer.eval()

    def query(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the queries."""
        count = torch.Size(self.batch).numel()
        query = self._draw("query", count, self.query_norm)
        if self.values == "zeros":
            query[0] = 0
        elif self.values != "normal":
            rows = self.layer(dtype).embedding.detach().float()
            noise = NOISE * query if self.values == "near" else 0
            query = rows[torch.arange(count) % len(rows)] + noise
        return query.reshape(*self.batch, self.features).to(dtype)

    def parts(self, table: Tensor, query: Tensor) -> Parts:
        """Return the terms in float64. The norm is clamped at 1e-8 where it divides."""
        q, e = query.double(), table.detach().double()
        if self.spherical:
            q, e = (v / v.norm(dim=-1, keepdim=True).clamp_min(1e-8) for v in (q, e))
        dot = q @ e.T
        if self.spherical:
            q_sq = e_sq = torch.ones((), dtype=torch.float64)
            distance = (2 - 2 * dot).clamp_min(0)
        else:
            q_sq, e_sq = q.square().sum(-1, keepdim=True), e.square().sum(-1)
            distance = (q.unsqueeze(-2) - e).square().sum(-1)
        exact = self.alpha * dot.square() / (distance + self.epsilon)
        return Parts(exact, dot, q_sq, e_sq, 0.0)

    def _draw(self, what: str, count: int, norm: float) -> Tensor:
        random = torch.Generator().manual_seed(zlib.crc32(f"{self.id} {what}".encode()))
        return norm * self.features**-0.5 * torch.randn(count, self.features, generator=random)


EMBED_CASES = (
    EmbedCase("plain"),
    EmbedCase("all-sizes-one", batch=(1,), vocabulary=1, features=1),
    EmbedCase("three-leading-axes", batch=(2, 3, 4), alpha=2**0.5),
    EmbedCase("alpha-zero", alpha=0.0),
    EmbedCase("alpha-negative", alpha=-1.5, epsilon=0.007),
    EmbedCase("near", batch=(7,), features=64, values="near"),
    EmbedCase("equal", features=64, values="equal"),
    EmbedCase("zeros", values="zeros"),
    EmbedCase("large", query_norm=3000.0, row_norm=3000.0),
    EmbedCase("tiny", query_norm=1e-10, row_norm=1e-10),
    EmbedCase("spherical", spherical=True, batch=(2, 3), alpha=0.3),
    EmbedCase("spherical-near", spherical=True, features=64, values="near"),
    EmbedCase("spherical-equal", spherical=True, features=64, values="equal"),
    EmbedCase("spherical-zeros", spherical=True, values="zeros"),
    EmbedCase("spherical-large", spherical=True, query_norm=3e4, row_norm=3e4),
    EmbedCase("spherical-short-query", spherical=True, query_norm=1e-7),
    EmbedCase("spherical-short-rows", spherical=True, row_norm=1e-7),
    EmbedCase("spherical-shorter-than-the-clamp", spherical=True, query_norm=3e-9, row_norm=3e-9),
    EmbedCase("spherical-around-the-clamp", spherical=True, query_norm=1e-8, row_norm=1e-8),
)
"""Every dtype can hold these numbers, or rounds them to zero."""
