"""The kernels as the CUDA implementation of the torch ops, in eager mode and torch.compile."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nmn_export.kernels.attention import launch as attention
from nmn_export.kernels.conv import launch as conv
from nmn_export.kernels.conv_transpose import launch as conv_transpose
from nmn_export.kernels.dense import launch as dense
from nmn_export.kernels.device import device_of
from nmn_export.kernels.linear_attention import launch as linear_attention
from nmn_export.kernels.weights import DTYPES
from nmn_export.ops import yat_attention, yat_conv, yat_conv_transpose, yat_dense
from nmn_export.ops.linear_attention import causal_linear_attention

_Implementation = Callable[..., Tensor]


def _all(*_: object) -> bool:
    return True


_OPS: tuple[tuple[str, _Implementation, _Implementation, Callable[..., bool]], ...] = (
    ("nmn::yat_dense", dense.forward, yat_dense, _all),
    ("nmn::yat_conv", conv.forward, yat_conv, _all),
    ("nmn::yat_conv_transpose", conv_transpose.forward, yat_conv_transpose, _all),
    ("nmn::yat_attention", attention.forward, yat_attention, attention.supports),
    ("nmn::causal_linear_attention", linear_attention.forward, causal_linear_attention, _all),
)
"""Torch op, its fused implementation, the eager one, and whether the fused one takes some arguments
of a supported dtype. All have the same arguments."""

_OLDEST_CAPABILITY = 80
"""The first with bfloat16 products and asynchronous copies."""


def register() -> None:
    """Register the CUDA implementation of every op. Other devices are not affected."""
    for name, fused, eager, takes in _OPS:
        torch.library.register_kernel(name, "cuda", _fused_if_supported(fused, eager, takes))


def _fused_if_supported(
    fused: _Implementation, eager: _Implementation, takes: Callable[..., bool] = _all
) -> _Implementation:
    """Return a function that calls `fused`, or `eager` if the kernels do not support the input."""

    def run(x: Tensor, *arguments: Any) -> Tensor:
        supported = x.dtype in DTYPES and device_of(x).capability >= _OLDEST_CAPABILITY
        supported = supported and takes(x, *arguments)
        return (fused if supported else eager)(x, *arguments)

    return run
