"""Fixtures that all tests share."""

import os
from pathlib import Path

# Triton reads this variable when it is imported, and PyTorch may import it at any time.
os.environ["TRITON_INTERPRET"] = "1"
# The workers of a parallel run share the cores, so each of them uses one thread.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from torch import nn

from nmn_export import export
from nmn_export.layers import YatConv2d, YatDense


class SmallNet(nn.Module):
    """A network with a ⵟ layer of each kind and standard layers between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.yat_conv = YatConv2d(8, 6, 3, stride=2, padding=1)
        self.head = YatDense(6, 5, constant_alpha=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.yat_conv(self.stem(x)).mean((2, 3)))


@pytest.fixture(scope="session")
def small_net() -> nn.Module:
    torch.manual_seed(1)
    net = SmallNet().eval()
    with torch.no_grad():
        net.yat_conv.bias.normal_()
        net.head.bias.normal_()
    return net


@pytest.fixture(scope="session")
def small_file(small_net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    export(small_net, torch.randn(2, 3, 10, 10), path, dynamic_shapes={"x": {0: "batch"}})
    return path
