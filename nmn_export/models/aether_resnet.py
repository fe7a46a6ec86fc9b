"""AetherResNet: a residual network without normalisation or activation functions.

Every block is a ⵟ convolution, then a linear one, then the residual sum. There is no other
non-linearity than the ⵟ-product. The layout is that of the `nmn` package's ResNet for ImageNet; a
bottleneck puts the ⵟ convolution between two linear 1×1 ones.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from nmn_export.errors import NmnExportError
from nmn_export.layers import YatConv2d, YatDense

Stem = Literal["imagenet", "cifar"]

WIDTHS = (64, 128, 256, 512)


def _linear(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)


def _yat(in_channels: int, out_channels: int, stride: int) -> YatConv2d:
    return YatConv2d(
        in_channels, out_channels, 3, stride, padding=1, bias=False, constant_alpha=True
    )


class _Block(nn.Module):
    """Base of both blocks: the sum of a path and a shortcut."""

    expansion: int
    shortcut: nn.Module

    def _make_shortcut(self, in_channels: int, width: int, stride: int) -> nn.Module:
        out_channels = width * self.expansion
        if stride == 1 and in_channels == out_channels:
            return nn.Identity()
        return _linear(in_channels, out_channels, 1, stride)


class BasicBlock(_Block):
    """ⵟ 3×3, linear 3×3, residual.

    Args:
        in_channels: Channels of the input.
        width: Channels inside, and of the output.
        stride: Of the ⵟ convolution and the shortcut.
    """

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.yat_conv = _yat(in_channels, width, stride)
        self.lin_conv = _linear(width, width, 3)
        self.shortcut = self._make_shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, width, H / stride, W / stride]."""
        y: Tensor = self.lin_conv(self.yat_conv(x)) + self.shortcut(x)
        return y


class Bottleneck(_Block):
    """Linear 1×1, ⵟ 3×3, linear 1×1, residual.

    Args:
        in_channels: Channels of the input.
        width: Channels inside; the output has four times as many.
        stride: Of the ⵟ convolution and the shortcut.
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.reduce = _linear(in_channels, width, 1)
        self.yat_conv = _yat(width, width, stride)
        self.lin_conv = _linear(width, width * self.expansion, 1)
        self.shortcut = self._make_shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, 4 · width, H / stride, W / stride]."""
        y: Tensor = self.lin_conv(self.yat_conv(self.reduce(x))) + self.shortcut(x)
        return y


class AetherResNet(nn.Module):
    """A stem, four stages of blocks (or as many as there are widths), mean pooling, a ⵟ head.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        depths: Blocks in each stage.
        num_classes: Outputs of the head.
        stem: `"imagenet"` (7×7 stride 2, then max-pooling) or `"cifar"` (3×3).
        in_channels: Channels of the images.
        widths: Width of each stage; every stage but the first halves the image.

    Raises:
        NmnExportError: The stem is unknown, or depths and widths differ in number.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        num_classes: int = 1000,
        stem: Stem = "imagenet",
        in_channels: int = 3,
        widths: Sequence[int] = WIDTHS,
    ) -> None:
        super().__init__()
        if len(depths) != len(widths):
            raise NmnExportError(
                "Every stage needs a depth and a width",
                got=f"{len(depths)} depths and {len(widths)} widths",
                fix="Give as many of each.",
            )
        channels = widths[0]
        if stem == "imagenet":
            self.conv1 = _linear(in_channels, channels, 7, 2)
            self.pool: nn.Module = nn.MaxPool2d(3, 2, 1)
        elif stem == "cifar":
            self.conv1 = _linear(in_channels, channels, 3)
            self.pool = nn.Identity()
        else:
            raise NmnExportError(
                "stem must be 'imagenet' or 'cifar'", got=repr(stem), fix="Use one of them."
            )
        self.stages = len(depths)
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = []
            for i in range(depth):
                blocks.append(block(channels, width, 2 if stage > 0 and i == 0 else 1))
                channels = width * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.head = YatDense(channels, num_classes, bias=False, constant_alpha=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, in_channels, H, W] to scores [B, num_classes]."""
        x = self.pool(self.conv1(x))
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        y: Tensor = self.head(self.avgpool(x).flatten(1))
        return y


def aether_resnet18(num_classes: int = 1000, stem: Stem = "imagenet") -> AetherResNet:
    """Return AetherResNet-18: two basic blocks per stage."""
    return AetherResNet(BasicBlock, (2, 2, 2, 2), num_classes, stem)


def aether_resnet34(num_classes: int = 1000, stem: Stem = "imagenet") -> AetherResNet:
    """Return AetherResNet-34: three, four, six and three basic blocks."""
    return AetherResNet(BasicBlock, (3, 4, 6, 3), num_classes, stem)


def aether_resnet50(num_classes: int = 1000, stem: Stem = "imagenet") -> AetherResNet:
    """Return AetherResNet-50: three, four, six and three bottlenecks."""
    return AetherResNet(Bottleneck, (3, 4, 6, 3), num_classes, stem)
