"""The table of all kernels that are compiled ahead of time."""

from collections.abc import Callable, Iterator

from nmn_export.kernels.ahead_of_time.shared_variants import shared_variants
from nmn_export.kernels.ahead_of_time.variant import Variant
from nmn_export.kernels.attention.variants import attention_variants
from nmn_export.kernels.conv.variants import conv_variants
from nmn_export.kernels.conv_transpose.variants import conv_transpose_variants
from nmn_export.kernels.dense.variants import dense_variants
from nmn_export.kernels.linear_attention.variants import linear_attention_variants

_SOURCES: tuple[Callable[[int], Iterator[Variant]], ...] = (
    shared_variants,
    dense_variants,
    conv_variants,
    conv_transpose_variants,
    attention_variants,
    linear_attention_variants,
)
"""Each yields kernels for a compute capability."""


def variants(capability: int) -> Iterator[Variant]:
    """Yield all kernels to compile for `capability`."""
    for source in _SOURCES:
        yield from source(capability)
