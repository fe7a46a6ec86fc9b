"""The network that inference needs: the user's, with every ⵟ layer folded to one op."""

import copy
from typing import Any

import torch
from torch import nn

from nmn_export.errors import NmnExportError
from nmn_export.layers import YatLayer
from nmn_export.layers.folded import FoldedYat


def fold(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """Return `model` in eval mode with its ⵟ layers folded; `model` itself stays as it is.

    Args:
        model: Any module; parameters are shared with the result unless `dtype` converts them.
        dtype: Convert parameters and buffers of floating dtype to this one.

    Raises:
        NmnExportError: A parameter or buffer is not finite.
    """
    _refuse_non_finite(model)
    memo: dict[int, Any] = {id(t): t for t in (*model.parameters(), *model.buffers())}
    memo |= {id(m): m.fold() for m in model.modules() if isinstance(m, YatLayer)}
    folded: nn.Module = copy.deepcopy(model, memo)
    if dtype is not None:
        folded = copy.deepcopy(folded)
        folded.to(dtype=dtype)
        for module in folded.modules():
            if isinstance(module, FoldedYat):
                module.dtype = None
    return folded.eval()


def _refuse_non_finite(model: nn.Module) -> None:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    bad = [name for name, t in tensors if t.is_floating_point() and not t.isfinite().all()]
    if bad:
        raise NmnExportError(
            "Weights must be finite",
            got=f"NaN or infinity in {', '.join(bad[:5])}{' …' if len(bad) > 5 else ''}",
            fix="Train again from a checkpoint before the divergence.",
        )
