"""The kernels of YatConvTranspose that are compiled ahead of time."""

from collections.abc import Iterator

from nmn_export.kernels.ahead_of_time.variant import Variant
from nmn_export.kernels.conv.variants import image_variants
from nmn_export.kernels.conv_transpose.kernel import yat_conv_transpose_forward_kernel


def conv_transpose_variants(capability: int) -> Iterator[Variant]:
    """Yield the kernels for `capability`."""
    kernel = yat_conv_transpose_forward_kernel
    return image_variants("YatConvTranspose", "yat_conv_transpose", kernel, capability)
