"""Masks of attention: what a user gives, as the one tensor that is added to the scores."""

import torch
from torch import Tensor

from nmn_export.errors import OptionError


def added_to_scores(
    mask: Tensor | None,
    additive_mask: Tensor | None,
    key_lengths: Tensor | None,
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
) -> Tensor | None:
    """Return the masks in one, with four axes in the smallest shape that holds them.

    Args:
        mask: Says which keys a query attends to: booleans, or numbers that are zero where it does
            not. Floating-point numbers must be zeros and ones.
        additive_mask: Floating-point numbers that are added to the scores; −∞ hides a key.
        key_lengths: How many keys each item of the batch has, [B].
        shape: [B, H, Lq, Lk] of the scores.
        dtype: Of the result. Finite numbers stay finite in it.

    Returns:
        A tensor that broadcasts to `shape`, or `None` if there is no mask.

    Raises:
        OptionError: A mask does not broadcast to `shape`, or a mask of numbers looks like one that
            is added.
    """
    sees = None if mask is None else boolean_mask(mask, shape)
    if key_lengths is not None:
        lengths = _lengths(key_lengths, shape[0])
        exists = torch.arange(shape[3], device=lengths.device) < lengths
        sees = exists if sees is None else sees & exists
    if additive_mask is None:
        if sees is None:
            return None
        return torch.zeros((), dtype=dtype, device=sees.device).masked_fill(~sees, float("-inf"))
    added = _four_axes("additive_mask", additive_mask, shape)
    if not added.is_floating_point():
        raise OptionError(
            "additive_mask has floating-point numbers",
            got=added.dtype,
            fix="Pass booleans, which say where to attend, as mask.",
        )
    least = max(torch.finfo(dtype).min, torch.finfo(added.dtype).min)
    added = added.masked_fill(added.isfinite() & (added < least), least).to(dtype)
    return added if sees is None else added.masked_fill(~sees, float("-inf"))


def boolean_mask(mask: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """Return which keys a query attends to, as booleans with four axes.

    Args:
        mask: As in `added_to_scores`.
        shape: [B, H, Lq, Lk] of the scores.

    Raises:
        OptionError: As in `added_to_scores`.
    """
    sees = _four_axes("mask", mask, shape)
    if sees.is_floating_point():
        _refuse_additive(sees)
    return sees.bool()


def visible_keys(
    added: Tensor | None, is_causal: bool, shape: tuple[int, int, int, int]
) -> Tensor | None:
    """Return which keys are not hidden, in a shape that broadcasts to that of the scores.

    Args:
        added: The result of `added_to_scores`.
        is_causal: Whether query i sees keys up to i + Lk − Lq only.
        shape: [B, H, Lq, Lk] of the scores.

    Returns:
        Booleans, or `None` if every query sees every key.
    """
    visible = None if added is None else added > float("-inf")
    if is_causal:
        queries, keys = shape[2:]
        device = None if added is None else added.device
        place = torch.arange(queries, device=device).unsqueeze(1) + (keys - queries)
        earlier = torch.arange(keys, device=device) <= place
        visible = earlier if visible is None else visible & earlier
    return visible


def _four_axes(name: str, mask: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    fits = mask.ndim <= 4 and all(
        size in (1, wanted) for size, wanted in zip(mask.shape[::-1], shape[::-1], strict=False)
    )
    if not fits:
        raise OptionError(
            f"{name} must broadcast to the scores, of shape {tuple(shape)}",
            got=f"shape {tuple(mask.shape)}",
            fix="Give it one of (queries, keys), (batch, 1, 1, keys), (batch, 1, queries, keys) "
            "and (batch, heads, queries, keys).",
        )
    return mask.reshape((1,) * (4 - mask.ndim) + mask.shape)


def _lengths(key_lengths: Tensor, batch: int) -> Tensor:
    """Return the numbers of keys as [B, 1, 1, 1]."""
    if key_lengths.shape != (batch,) or key_lengths.is_floating_point():
        raise OptionError(
            "key_lengths has one integer for each item of the batch",
            got=f"{key_lengths.dtype} of shape {tuple(key_lengths.shape)} for {batch} items",
            fix="Give it shape [batch].",
        )
    return key_lengths.reshape(-1, 1, 1, 1)


def _refuse_additive(mask: Tensor) -> None:
    """Refuse numbers other than zero and one, which would mean the opposite if they were added.

    A traced mask has no values. Whoever traces a network also runs it on the example.
    """
    if torch.compiler.is_compiling() or mask.device.type == "meta":
        return
    if not ((mask == 0) | (mask == 1)).all():
        raise OptionError(
            "mask says where to attend, so its numbers are 0 and 1",
            got=f"numbers from {mask.min().item():g} to {mask.max().item():g}",
            fix="Pass a mask that is added to the scores as additive_mask, and one whose other "
            "numbers mean 1 as mask != 0.",
        )
