"""Models made of ⵟ layers."""

from nmn_export.models.aether_resnet import (
    AetherResNet,
    BasicBlock,
    Bottleneck,
    aether_resnet18,
    aether_resnet34,
    aether_resnet50,
)
from nmn_export.models.zoo import ZOO, ZooEntry

__all__ = [
    "ZOO",
    "AetherResNet",
    "BasicBlock",
    "Bottleneck",
    "ZooEntry",
    "aether_resnet18",
    "aether_resnet34",
    "aether_resnet50",
]
