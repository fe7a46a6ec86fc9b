"""The shapes and dtypes of the GPU benchmark. Needs no PyTorch."""

from dataclasses import dataclass

MODES = {
    "float16": ("float16", None),
    "bfloat16": ("bfloat16", None),
    "float32-bf16x3": ("float32", "bf16x3"),
    "float32-bf16x6": ("float32", "bf16x6"),
}
"""Dtype and float32 precision by name, the most valuable first. The last is only checked."""

TIMED_MODES = tuple(MODES)[:3]


@dataclass(frozen=True)
class Shape:
    """A layer's shape: x is [batch, features], or [batch, features, size, size] if size > 0.

    Attributes:
        batch: Number of rows or images.
        features: Number of input features or channels.
        outputs: Number of output features or channels.
        size: Height and width of the image; 0 for a dense layer.
        stride: Stride of the filters.
        kernel: Height and width of the filters.
        transposed: Whether it is a transposed convolution.
    """

    batch: int
    features: int
    outputs: int
    size: int = 0
    stride: int = 1
    kernel: int = 3
    transposed: bool = False

    @property
    def kind(self) -> str:
        """The name of the op in file names."""
        return "conv_transpose" if self.transposed else "conv" if self.size else "dense"

    @property
    def name(self) -> str:
        """Name in records and tables."""
        layer = f"{self.features}→{self.outputs}"
        if not self.size:
            return f"dense {layer} M{self.batch}"
        kernel = f"{self.kernel}×{self.kernel}"
        return f"{self.kind} {kernel} {layer} {self.size}² s{self.stride} b{self.batch}"

    @property
    def target(self) -> float:
        """The design's goal for the ratio of fused to linear."""
        if self.size:
            return 1.05 if self.transposed else 1.10
        if self.batch <= 64:
            return 1.03
        return 1.04 if self.features >= 4096 else 1.06 if self.features >= 1024 else 1.08

    @property
    def pad(self) -> int:
        """Pads on each side, so that only the stride changes the size of the image."""
        return (self.kernel - (self.stride if self.transposed else 1)) // 2

    @property
    def out_size(self) -> int:
        """Height and width of the output image; 0 for a dense layer."""
        return self.size * self.stride if self.transposed else -(-self.size // self.stride)

    @property
    def flops(self) -> int:
        """Floating-point operations of the linear layer."""
        products = self.batch * self.features * self.outputs
        if self.size:
            products *= (self.kernel * (self.size if self.transposed else self.out_size)) ** 2
        return 2 * products


SHAPES = (
    *(Shape(m, 4096, 4096) for m in (1, 16, 64, 4096, 65536)),
    *(Shape(m, 768, 3072) for m in (4096, 16384, 65536)),
    *(Shape(m, 1024, 4096) for m in (4096, 65536)),
    *(
        Shape(b, features, features * stride, size, stride)
        for size, features in ((56, 64), (28, 128), (14, 256), (7, 512))
        for stride in ((1, 2) if size > 7 else (1,))
        for b in (1, 32, 256)
    ),
    *(
        Shape(b, features, features // 2, size, 2, kernel, transposed=True)
        for size, features, kernel in ((8, 512, 4), (16, 256, 4), (32, 128, 4), (28, 512, 2))
        for b in (1, 32)
    ),
)
"""Timed shapes."""

VALUABLE_SHAPES = (
    Shape(65536, 768, 3072),
    Shape(4096, 768, 3072),
    Shape(65536, 1024, 4096),
    Shape(32, 64, 64, 56),
    Shape(32, 256, 256, 14),
    Shape(32, 256, 128, 16, 2, 4, transposed=True),
)
"""Those of `SHAPES` that are timed first."""

CHECKED_SHAPES = (
    Shape(512, 768, 3072),
    Shape(8, 128, 256, 28, 2),
    Shape(48, 4096, 512),
    Shape(4, 256, 256, 14),
    Shape(5, 100, 33),
    Shape(2, 3, 64, 32),
    Shape(17408, 256, 384),
    Shape(4, 128, 256, 8, 2, 4, transposed=True),
    Shape(3, 40, 33, 7, 3, 3, transposed=True),
)
"""Shapes compared with float64. They are small, and cover every kernel, schedule and odd size."""

COMPILED_SHAPES = (
    Shape(65536, 768, 3072),
    Shape(32, 64, 64, 56),
    Shape(32, 256, 128, 16, 2, 4, transposed=True),
)
"""Shapes for which torch.compile is autotuned."""

TINY_SHAPES = (
    Shape(40, 32, 48),
    Shape(3, 32, 16),
    Shape(1, 16, 16, 5, 2),
    Shape(1, 16, 16, 3, 2, 4, transposed=True),
)
"""Shapes of a dry run."""
