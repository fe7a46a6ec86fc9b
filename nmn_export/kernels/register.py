"""The kernels as the CUDA implementation of the torch ops, in eager mode and torch.compile."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nmn_export.kernels.conv import launch as conv
from nmn_export.kernels.dense import launch as dense
from nmn_export.kernels.device import device_of
from nmn_export.kernels.linear_attention import launch as linear_attention
from nmn_export.kernels.weights import DTYPES
from nmn_export.ops import yat_conv, yat_dense
from nmn_export.ops.linear_attention import causal_linear_attention

_Implementation = Callable[..., Tensor]

_OPS: tuple[tuple[str, _Implementation, _Implementation], ...] = (
    ("nmn::yat_dense", dense.forward, yat_dense),
    ("nmn::yat_conv", conv.forward, yat_conv),
    ("nmn::causal_linear_attention", linear_attention.forward, causal_linear_attention),
)
"""Torch op, its fused implementation, and the eager one with the same arguments."""

_OLDEST_CAPABILITY = 80
"""The first with bfloat16 products and asynchronous copies."""


def register() -> None:
    """Register the CUDA implementation of every op. Other devices are not affected."""
    for name, fused, eager in _OPS:
        torch.library.register_kernel(name, "cuda", _fused_if_supported(fused, eager))


def _fused_if_supported(fused: _Implementation, eager: _Implementation) -> _Implementation:
    """Return a function that calls `fused`, or `eager` if the kernels do not support the input."""

    def run(x: Tensor, *arguments: Any) -> Tensor:
        supported = x.dtype in DTYPES and device_of(x).capability >= _OLDEST_CAPABILITY
        return (fused if supported else eager)(x, *arguments)

    return run
