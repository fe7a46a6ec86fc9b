"""The kernels as what the torch ops do on CUDA, in eager mode and under torch.compile alike."""

import torch
from torch import Tensor

from nmn_export.kernels.conv import launch as conv
from nmn_export.kernels.dense import launch as dense
from nmn_export.kernels.plan import device_of
from nmn_export.kernels.weights import DTYPES
from nmn_export.ops import yat_conv, yat_dense

_OLDEST_CAPABILITY = 80
"""The first with bfloat16 products and asynchronous copies."""


def _takes(x: Tensor) -> bool:
    """Return whether the kernels take `x`; for the rest, eager PyTorch is the right answer."""
    return x.dtype in DTYPES and device_of(x).capability >= _OLDEST_CAPABILITY


def _yat_dense(
    x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float, alpha: float, spherical: bool
) -> Tensor:
    run = dense.forward if _takes(x) else yat_dense
    return run(x, weight, bias, epsilon, alpha, spherical)


def _yat_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    strides: list[int],
    pads: list[int],
    dilations: list[int],
    group: int,
) -> Tensor:
    run = conv.forward if _takes(x) else yat_conv
    return run(x, weight, bias, epsilon, alpha, strides, pads, dilations, group)


def register() -> None:
    """Give the ops their CUDA implementation; that for other devices stays what it is."""
    torch.library.register_kernel("nmn::yat_dense", "cuda", _yat_dense)
    torch.library.register_kernel("nmn::yat_conv", "cuda", _yat_conv)
