"""The output size that a caller asks a transposed convolution for."""

from collections.abc import Sequence

from torch.fx.experimental.symbolic_shapes import is_concrete_int

from nmn_export.errors import OptionError
from nmn_export.ops.conv_transpose import output_size as smallest_size


def output_padding_for(
    wanted: Sequence[int],
    input_shape: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> tuple[int, ...]:
    """Return the output padding for an output size, by the rule of PyTorch's layers.

    Args:
        wanted: Size of each spatial axis of the output, perhaps after those of batch and channels.
        input_shape: [B, C, *S].
        kernel: Taps per spatial axis.
        strides: One per spatial axis.
        pads: Before each axis, then after each axis.
        dilations: One per spatial axis.

    Raises:
        OptionError: The number of sizes is wrong, a stride cannot lead to one of them, or the
            padding is not constant while a network is traced.
    """
    rank = len(kernel)
    if len(wanted) not in (rank, rank + 2):
        raise OptionError(
            f"output_size must be {rank} numbers, or {rank + 2} with batch and channels",
            got=f"{len(wanted)}: {tuple(wanted)}",
            fix="Give the sizes of the spatial axes.",
        )
    least = smallest_size(input_shape[2:], kernel, strides, pads, dilations, (0,) * rank)
    padding = tuple(w - n for w, n in zip(wanted[-rank:], least, strict=True))
    if not all(map(is_concrete_int, padding)):
        raise OptionError(
            "output_size must be the same multiple of the input size for all sizes of a dynamic "
            "axis, because output padding is a constant of a graph",
            got="an output padding that depends on the size",
            fix="Do not make that axis dynamic, or set output_padding of the layer instead.",
        )
    if any(p < 0 or p >= s for p, s in zip(padding, strides, strict=True)):
        most = [n + s - 1 for n, s in zip(least, strides, strict=True)]
        raise OptionError(
            f"output_size must be from {tuple(least)} to {tuple(most)} for this input",
            got=str(tuple(wanted)),
            fix="Ask for a size between these.",
        )
    return padding
