"""YatEmbed, a table of embeddings that are also prototypes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nmn_export.errors import NmnExportError
from nmn_export.layers.folded import FoldedParameters, FoldedYatDense
from nmn_export.layers.options import check_scalars
from nmn_export.layers.scalars import YatScalars
from nmn_export.ops import yat_dense
from nmn_export.ops.yat import HALF_PRECISIONS, clamped_rows, compute_dtype, saturate

_LONG = 0.1
"""Adding 1e-8 to a norm of at least this changes it by no more than float32 rounding."""


class YatEmbed(YatScalars):
    """A lookup table, and y = α ⟨q, e⟩² / (‖q − e‖² + ε) of a query with each row e of it.

    The same table can be the first and the last layer of a language model: `embed(ids)` maps tokens
    to vectors, and `embed.attend(vectors)` maps vectors to a score for each token.

    Args:
        num_embeddings: V, the number of rows.
        features: F, the size of a row.
        use_alpha: Learn α.
        constant_alpha: Fix α to this number instead; `True` stands for √2.
        epsilon: ε > 0, or where a learned ε starts.
        spherical: In `attend`, divide queries and rows by max(norm, 1e-8) first. The distance is
            then max(2 − 2⟨q, e⟩, 0), even for zero vectors.
        weight_normalized: Divide the initial rows by their norms. This has no effect later.
        device: Device of the parameters.
        dtype: Dtype of the table.
        learnable_epsilon: Learn ε.

    Attributes:
        embedding: The table, [V, F].

    Raises:
        OptionError: An option has a value that it cannot have.
    """

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        use_alpha: bool = True,
        constant_alpha: float | bool | None = None,
        epsilon: float = 1e-5,
        spherical: bool = False,
        weight_normalized: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        learnable_epsilon: bool = False,
    ) -> None:
        super().__init__()
        storage = dtype or torch.get_default_dtype()
        check_scalars(constant_alpha, epsilon, learnable_epsilon, compute_dtype(storage))
        self.num_embeddings = num_embeddings
        self.features = features
        self.spherical = spherical
        self.weight_normalized = weight_normalized
        table = torch.empty(num_embeddings, features, device=device, dtype=storage)
        self.embedding = nn.Parameter(table)
        self._add_scalars(
            use_alpha=use_alpha,
            constant_alpha=constant_alpha,
            epsilon=epsilon,
            learnable_epsilon=learnable_epsilon,
            device=device,
            storage=storage,
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise the table with normal numbers, so that rows have norms near 1."""
        nn.init.normal_(self.embedding, std=1 / math.sqrt(max(self.features, 1)))
        if self.weight_normalized:
            with torch.no_grad():
                F.normalize(self.embedding, dim=-1, out=self.embedding)
        self._reset_scalars()

    def forward(self, inputs: Tensor) -> Tensor:
        """Look rows up: map ids [...] to [..., F], in the dtype of the table.

        Args:
            inputs: Ids from 0 to V − 1, int64 or int32.

        Raises:
            NmnExportError: The ids have another dtype.
            IndexError: An id is out of range.
        """
        return F.embedding(_checked(inputs), self.embedding)

    def attend(self, query: Tensor) -> Tensor:
        """Map queries [..., F] to scores [..., V], in the dtype of the query.

        A single query [F] gives [1, V], or [V] if the layer is spherical, as in upstream's layer.

        Args:
            query: In the dtype of the table. A float16 or bfloat16 query may meet any table: both
                are computed with in float32, and the result saturates.

        Raises:
            NmnExportError: The query has another size or dtype.
        """
        x, table = _operands(query, self.embedding, self.spherical)
        if self.spherical:
            table = clamped_rows(table)
        y = self._yat(torch.ops.nmn.yat_dense, yat_dense, x, table, None, self.spherical)
        return saturate(y, query.dtype)

    def fold(self) -> "FoldedYatEmbed":
        """Return the layer as inference needs it: a lookup, and one op for `attend`."""
        with torch.no_grad():
            return FoldedYatEmbed(
                self.embedding.detach(),
                epsilon=float(self.effective_epsilon()),
                alpha=float(self.effective_alpha()),
                spherical=self.spherical,
            )

    def extra_repr(self) -> str:
        """Return the options of the layer, as PyTorch's own layers print theirs."""
        others = {
            "use_alpha": (self.use_alpha, True),
            "constant_alpha": (self.constant_alpha, None),
            "learnable_epsilon": (self.learnable_epsilon, False),
            "spherical": (self.spherical, False),
            "weight_normalized": (self.weight_normalized, False),
        }
        shown = [f"{name}={value}" for name, (value, default) in others.items() if value != default]
        sizes = [str(self.num_embeddings), str(self.features), f"epsilon={self.epsilon}"]
        return ", ".join(sizes + shown)


class FoldedYatEmbed(nn.Module):
    """A lookup table [V, F], and `attend`, the module that is one `nmn::yat_dense`."""

    embedding: Tensor

    def __init__(self, embedding: Tensor, *, epsilon: float, alpha: float, spherical: bool) -> None:
        super().__init__()
        rows = embedding
        if spherical and bool((torch.linalg.vector_norm(rows.float(), dim=-1) < _LONG).any()):
            rows = clamped_rows(rows.to(compute_dtype(rows.dtype)))
        parameters = FoldedParameters(
            weight=rows, bias=None, epsilon=epsilon, alpha=alpha, dtype=None
        )
        self.attend = FoldedAttend(parameters, spherical=spherical)
        self.register_buffer("embedding", self.attend.weight if rows is embedding else embedding)

    def forward(self, inputs: Tensor) -> Tensor:
        """Look rows up: map ids [...] to [..., F]."""
        ids = _checked(inputs)
        # ONNX counts negative ids from the end. They have to be out of range there, too.
        return F.embedding(torch.where(ids < 0, len(self.embedding), ids), self.embedding)


class FoldedAttend(FoldedYatDense):
    """One `nmn::yat_dense` of queries with the table."""

    def forward(self, x: Tensor, deterministic: bool | None = None) -> Tensor:
        """Map [..., F] to [..., V]. `deterministic` has no effect."""
        del deterministic
        rows, _ = _operands(x, self.weight, self.spherical)
        return saturate(self.product(rows), x.dtype)


def _operands(query: Tensor, table: Tensor, spherical: bool) -> tuple[Tensor, Tensor]:
    """Return a query and the table in the dtype that the op computes in.

    A spherical op divides by the norm plus 1e-8, so it gets rows that make up for that. They are in
    float32 or wider, because rounding them would add to the rounding of the query.
    """
    if query.ndim == 0 or query.shape[-1] != table.shape[-1]:
        raise NmnExportError(
            f"YatEmbed takes queries of {table.shape[-1]} features",
            got=f"shape {tuple(query.shape)}",
            fix="Change the query, or the features of the layer.",
        )
    if query.dtype in HALF_PRECISIONS and (spherical or table.dtype != query.dtype):
        wide, table = query.float(), table.float()
    elif query.dtype == table.dtype:
        wide = query
    else:
        raise NmnExportError(
            "YatEmbed takes queries in the dtype of its table, or in float16 or bfloat16",
            got=f"a query in {query.dtype} for a table in {table.dtype}",
            fix="Convert one of them.",
        )
    if spherical:
        return clamped_rows(wide), table
    return wide.unsqueeze(0) if query.ndim == 1 else wide, table


def _checked(ids: Tensor) -> Tensor:
    """Return ids, if their dtype is that of ids."""
    if ids.dtype not in (torch.int64, torch.int32):
        raise NmnExportError(
            "YatEmbed takes ids of dtype int64 or int32", got=ids.dtype, fix="Call .long() on them."
        )
    return ids
