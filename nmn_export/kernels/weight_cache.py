"""Prepared weights, kept until the parameters change. Does not import Triton."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from nmn_export.kernels.weights import Prepared


@dataclass(frozen=True, eq=False)
class _Entry:
    """A cache entry. It holds no strong reference to a tensor of the user.

    Attributes:
        storages: Weak references to the storages of the source tensors.
        versions: Version counters of the source tensors.
        prepared: The result. If its planes are a view of the weight, they are replaced by an
            empty tensor.
        view: Shape, strides and offset of that view, or `None`.
    """

    storages: list[StorageWeakRef]
    versions: tuple[int, ...]
    prepared: Prepared
    view: tuple[torch.Size, tuple[int, ...], int] | None


_CACHE: dict[tuple[object, ...], _Entry] = {}


def _weak(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def _expired(references: list[StorageWeakRef]) -> bool:
    return any(reference.expired() for reference in references)  # type: ignore[no-untyped-call]


def cached(
    weight: Tensor, bias: Tensor | None, options: tuple[object, ...], make: Callable[[], Prepared]
) -> Prepared:
    """Return `make()`, or its earlier result for the same unchanged tensors and `options`.

    A tensor is unchanged if its storage is alive and its version counter is the same. Two kinds of
    tensors are prepared at every call, because a change could not be noticed: tensors made in
    inference mode, and, during CUDA graph capture, parameters that require gradients.
    """
    tensors = [weight] if bias is None else [weight, bias]
    capturing = weight.is_cuda and torch.cuda.is_current_stream_capturing()
    if any(t.is_inference() or (capturing and t.requires_grad) for t in tensors):
        return make()
    storages = [_weak(t) for t in tensors]
    key = (
        *options,
        *(ref.cdata for ref in storages),
        *((t.storage_offset(), t.shape, t.stride(), t.dtype) for t in tensors),
    )
    versions = tuple(t._version for t in tensors)
    entry = _CACHE.get(key)
    if entry and entry.versions == versions and not _expired(entry.storages):
        if entry.view is None:
            return entry.prepared
        return replace(entry.prepared, planes=weight.detach().as_strided(*entry.view))
    for old in [k for k, e in _CACHE.items() if _expired(e.storages)]:
        del _CACHE[old]
    prepared = make()
    planes = prepared.planes
    if planes.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr():
        view = (planes.shape, planes.stride(), int(planes.storage_offset()))
        kept = replace(prepared, planes=planes.new_empty(0))
    else:
        view, kept = None, prepared
    _CACHE[key] = _Entry(storages, versions, kept, view)
    return prepared
