"""Modules whose constants stay in float32."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from nmn_export.ops.yat import compute_dtype


class Float32Constants(nn.Module):
    """A module whose own buffers stay in float32 if a model is converted to half precision.

    Frequencies and tables of angles have more digits than half precision. The module converts
    them to the dtype that it computes in.
    """

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "Float32Constants":
        before = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, old in before.items():
            new = getattr(self, name)
            if compute_dtype(new.dtype) != new.dtype:
                setattr(self, name, old.to(new.device, torch.float32))
        return self
