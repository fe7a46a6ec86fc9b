"""A model as inference needs it: every layer that can be folded is folded."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from nmn_export.errors import NmnExportError
from nmn_export.layers.constants import Float32Constants
from nmn_export.layers.folded import Foldable, Folded, FoldedYat, copy_hooks
from nmn_export.ops.yat import compute_dtype


def fold(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """Return `model` in eval mode with its layers folded; `model` itself stays as it is.

    Args:
        model: Any module; parameters are shared with the result unless `dtype` converts them.
        dtype: Convert parameters and buffers of floating dtype to this one. `Float32Constants` stay
            in float32 if it is a half precision.

    Raises:
        NmnExportError: A parameter or buffer is not finite.
    """
    _refuse_non_finite(model)
    memo: dict[int, Any] = {id(t): t for t in (*model.parameters(), *model.buffers())}
    layers = [m for m in model.modules() if isinstance(m, Foldable)]
    # A layer may hold others, which have to be folded first. It has more modules than they have.
    for layer in sorted(layers, key=lambda m: len(list(m.modules()))):
        replacement = layer.fold()
        copy_hooks(layer, replacement)
        memo |= {id(t): t for t in (*replacement.parameters(), *replacement.buffers())}
        memo[id(layer)] = copy.deepcopy(replacement, memo)
    folded: nn.Module = copy.deepcopy(model, memo)
    _share_weights(m for m in folded.modules() if isinstance(m, FoldedYat))
    if dtype is not None:
        tensors = (*folded.parameters(), *folded.buffers())
        converted = {id(t): _converted(t, dtype) for t in tensors}
        for module in folded.modules():
            if isinstance(module, Float32Constants):
                own = module.buffers(recurse=False)
                converted |= {id(t): _converted(t, compute_dtype(dtype)) for t in own}
        folded = copy.deepcopy(folded, converted)
        for module in folded.modules():
            if isinstance(module, Folded):
                module.dtype = None
    return folded.eval()


def _share_weights(layers: Iterable[FoldedYat]) -> None:
    """Let layers of one kernel bank have one tensor, so that a file holds it once."""
    first: dict[tuple[object, ...], Tensor] = {}
    for layer in layers:
        w = layer.weight
        view = (w.data_ptr(), w.shape, w.stride(), w.dtype, w.device)
        layer.weight = first.setdefault(view, w)


def _converted(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a copy of a parameter or buffer, in `dtype` if it is floating-point."""
    copied = tensor.detach().clone()
    copied = copied.to(dtype) if tensor.is_floating_point() else copied
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(copied, requires_grad=tensor.requires_grad)
    return copied


def _refuse_non_finite(model: nn.Module) -> None:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    bad = [name for name, t in tensors if t.is_floating_point() and not t.isfinite().all()]
    if bad:
        raise NmnExportError(
            "Weights must be finite",
            got=f"NaN or infinity in {', '.join(bad[:5])}{' …' if len(bad) > 5 else ''}",
            fix="Train again from a checkpoint before the divergence.",
        )
