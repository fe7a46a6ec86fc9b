import pytest
import torch
from torch import nn

from nmn_export import NmnExportError
from nmn_export.layers import YatConv2d, YatDense
from nmn_export.models import (
    ZOO,
    AetherResNet,
    BasicBlock,
    aether_resnet18,
    aether_resnet34,
    aether_resnet50,
)


@pytest.mark.parametrize(
    ("build", "parameters", "yat_convs"),
    # Parameter counts of the ResNets of the nmn package.
    [
        (aether_resnet18, 11_678_912, 8),
        (aether_resnet34, None, 16),
        (aether_resnet50, 25_502_912, 16),
    ],
)
def test_depths_have_their_layers_and_parameters(build, parameters, yat_convs):
    with torch.device("meta"):
        net = build()
    if parameters is not None:
        assert sum(p.numel() for p in net.parameters()) == parameters
    assert sum(isinstance(m, YatConv2d) for m in net.modules()) == yat_convs
    assert sum(isinstance(m, YatDense) for m in net.modules()) == 1


def test_there_is_no_normalisation_and_no_activation():
    kinds = {type(m) for m in aether_resnet50(10).modules() if not list(m.children())}
    assert kinds == {
        nn.Conv2d,
        YatConv2d,
        YatDense,
        nn.MaxPool2d,
        nn.Identity,
        nn.AdaptiveAvgPool2d,
    }


@pytest.mark.parametrize(("stem", "size"), [("imagenet", 64), ("cifar", 16)])
@pytest.mark.parametrize("build", [aether_resnet18, aether_resnet50])
def test_any_number_of_classes_and_both_stems(build, stem, size):
    assert build(7, stem)(torch.randn(2, 3, size, size)).shape == (2, 7)


def test_a_block_is_yat_then_linear_then_residual():
    block = BasicBlock(4, 4, 1)
    x = torch.randn(1, 4, 5, 5)
    assert torch.equal(block(x), block.lin_conv(block.yat_conv(x)) + x)


@pytest.mark.parametrize("name", ZOO)
def test_every_name_of_the_zoo_builds(name):
    entry = ZOO[name]
    with torch.device("meta"):
        net = entry.build()
        assert net(torch.empty(entry.input_shape)).shape[0] == 2


def test_contradictions_are_refused():
    with pytest.raises(NmnExportError, match="stem must be"):
        aether_resnet18(stem="mnist")
    with pytest.raises(NmnExportError, match="2 depths and 1 widths"):
        AetherResNet(BasicBlock, (1, 1), widths=(8,))
