"""Models by name."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from nmn_export.models.aether_resnet import (
    aether_resnet18,
    aether_resnet34,
    aether_resnet50,
)


@dataclass(frozen=True)
class ZooEntry:
    """A model with a name.

    Attributes:
        build: Builds it with random weights.
        input_shape: Shape of its input `x`. The batch size is 2, so that it can be dynamic.
    """

    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]


_SIZES = {"18": aether_resnet18, "34": aether_resnet34, "50": aether_resnet50}

ZOO: dict[str, ZooEntry] = {
    **{f"aether-resnet{n}": ZooEntry(build, (2, 3, 224, 224)) for n, build in _SIZES.items()},
    **{
        f"aether-resnet{n}-cifar{classes}": ZooEntry(
            partial(build, num_classes=classes, stem="cifar"), (2, 3, 32, 32)
        )
        for n, build in _SIZES.items()
        for classes in (10, 100)
    },
}
"""All models by name."""
