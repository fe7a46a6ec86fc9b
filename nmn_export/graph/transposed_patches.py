"""The products and patch norms of a transposed convolution, in three variants.

A transposed convolution writes one block of output per pixel, and blocks overlap. ONNX Runtime
computes all blocks before it adds them, in a buffer that is larger than the output. A convolution
needs no such buffer, so two variants are convolutions.
"""

from collections.abc import Sequence

from onnxscript import FLOAT, INT64, script
from onnxscript import opset18 as op

from nmn_export.graph.patches import PixelNorm
from nmn_export.graph.yat import PIECES


@script(PIECES, default_opset=op)
def ByGroup(w: FLOAT, group: int) -> FLOAT:
    """Reshape weights [C, N/group, *K] to [group, C/group, N/group, K]."""
    groups = op.Reshape(op.Constant(value_int=group), op.Constant(value_ints=[1]))
    channels = op.Div(op.Shape(w, end=1), groups)
    rest = op.Constant(value_ints=[-1])
    return op.Reshape(w, op.Concat(groups, channels, op.Shape(w, start=1, end=2), rest, axis=0))


@script(PIECES, default_opset=op)
def FilterNorm(w: FLOAT, group: int) -> FLOAT:
    """Return ‖w‖² of each filter, [O], from weights [C, O/group, *K]."""
    w_sq = op.ReduceSumSquare(ByGroup(w, group=group), op.Constant(value_ints=[1, 3]), keepdims=0)
    return op.Reshape(w_sq, op.Constant(value_ints=[-1]))


@script(PIECES, default_opset=op)
def BoxAndPixels(X: FLOAT, w: FLOAT, quarter: FLOAT, group: int) -> tuple[FLOAT, FLOAT]:
    """Return ones [group, 1, *K] and α/4 ‖pixel‖² [B, group, *S] for weights [C, N/group, *K].

    A product of all channels with ones would cost as much as the product with the weights.
    """
    one = op.Constant(value_ints=[1])
    groups = op.Reshape(op.Constant(value_int=group), one)
    size = op.Concat(groups, one, op.Shape(w, start=2), axis=0)
    box = op.Expand(op.Constant(value_float=1.0), size)
    return box, PixelNorm(X, op.Div(op.Shape(w, end=1), groups), quarter, group=group)


@script(PIECES, default_opset=op)
def Products(
    X: FLOAT,
    w: FLOAT,
    b: FLOAT,
    column: FLOAT,
    quarter: FLOAT,
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    output_padding: Sequence[int],
    group: int,
) -> tuple[FLOAT, FLOAT, FLOAT]:
    """Return g [B, N, *S'], α/4 ‖patch‖² [B, group, *S'] and the column terms [N].

    N is O here. It is O for every phase in `PhaseProducts`.
    """
    g = op.ConvTranspose(
        X,
        w,
        b,
        kernel_shape=kernel_shape,  # for the reason that YatConv gives
        strides=strides,
        pads=pads,
        dilations=dilations,
        output_padding=output_padding,
        group=group,
    )
    box, pixel_sq = BoxAndPixels(X, w, quarter, group=group)
    row = op.ConvTranspose(
        pixel_sq,
        box,
        kernel_shape=kernel_shape,
        strides=strides,
        pads=pads,
        dilations=dilations,
        output_padding=output_padding,
        group=group,
    )
    return g, row, op.Identity(column)


@script(PIECES, default_opset=op)
def Filters(w: FLOAT, group: int) -> FLOAT:
    """Return the filters [N, C/group, *K] of a convolution, from weights [C, N/group, *K].

    They are flipped along every spatial axis, which reverses the order of all taps.
    """
    groups = op.Reshape(op.Constant(value_int=group), op.Constant(value_ints=[1]))
    taps = op.Constant(value_ints=[3])
    back = op.Constant(value_ints=[-1])
    end = op.Constant(value_ints=[-(2**31)])
    by_output = op.Transpose(ByGroup(w, group=group), perm=[0, 2, 1, 3])
    flipped = op.Slice(by_output, back, end, taps, back)
    outputs = op.Mul(groups, op.Shape(w, start=1, end=2))
    channels = op.Div(op.Shape(w, end=1), groups)
    return op.Reshape(flipped, op.Concat(outputs, channels, op.Shape(w, start=2), axis=0))


@script(PIECES, default_opset=op)
def Surrounded(X: FLOAT, before: INT64, after: INT64) -> FLOAT:
    """Add zeros before and after the spatial axes. In ONNX Runtime they become pads of a Conv."""
    none = op.Constant(value_ints=[0, 0])
    return op.Pad(X, op.Concat(none, before, none, after, axis=0))


@script(PIECES, default_opset=op)
def Spread(X: FLOAT, w: FLOAT, strides: Sequence[int]) -> FLOAT:
    """Put `stride - 1` zeros between the pixels of [B, C, *S].

    Every channel is an image of its own, which a transposed convolution with one tap spreads.
    """
    one = op.Constant(value_ints=[1])
    size = op.Shape(X, start=2)
    tap = op.Expand(op.Constant(value_float=1.0), op.Expand(one, op.Shape(op.Shape(w))))
    count = op.Shape(X, end=1) * op.Shape(X, start=1, end=2)
    images = op.Reshape(X, op.Concat(count, one, size, axis=0), allowzero=1)
    spread = op.ConvTranspose(images, tap, strides=strides)
    larger = (size - one) * op.Constant(value_ints=strides) + one
    return op.Reshape(spread, op.Concat(op.Shape(X, end=2), larger, axis=0), allowzero=1)


@script(PIECES, default_opset=op)
def NoSpread(X: FLOAT, w: FLOAT, strides: Sequence[int]) -> FLOAT:
    """Replace `Spread` if every stride is 1."""
    return op.Identity(X)


@script(PIECES, default_opset=op)
def ConvolutionProducts(
    X: FLOAT,
    w: FLOAT,
    b: FLOAT,
    column: FLOAT,
    quarter: FLOAT,
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    output_padding: Sequence[int],
    group: int,
) -> tuple[FLOAT, FLOAT, FLOAT]:
    """Return the same as a convolution of the pixels with zeros between them."""
    taps = op.Constant(value_ints=kernel_shape)
    reach = op.Constant(value_ints=dilations) * (taps - op.Constant(value_int=1))
    removed = op.Reshape(op.Constant(value_ints=pads), op.Constant(value_ints=[2, -1]))
    spare = reach - removed
    before = op.Gather(spare, op.Constant(value_int=0))
    after = op.Gather(spare, op.Constant(value_int=1)) + op.Constant(value_ints=output_padding)
    g = op.Conv(
        Surrounded(Spread(X, w, strides=strides), before, after),
        Filters(w, group=group),
        b,
        kernel_shape=kernel_shape,
        dilations=dilations,
        group=group,
    )
    box, pixel_sq = BoxAndPixels(X, w, quarter, group=group)
    row = op.Conv(
        Surrounded(Spread(pixel_sq, w, strides=strides), before, after),
        box,
        kernel_shape=kernel_shape,
        dilations=dilations,
        group=group,
    )
    return g, row, op.Identity(column)


@script(PIECES, default_opset=op)
def ByPhase(w: FLOAT, strides: Sequence[int]) -> FLOAT:
    """Reshape weights [C, N/group, *K] to [C, P · N/group, *K/stride], P being the phases.

    Tap t · stride + r becomes tap t of phase r. The permutation is that for three spatial axes; if
    there are fewer, the first ones have one tap.
    """
    one = op.Constant(value_ints=[1])
    step = op.Constant(value_ints=strides)
    taps = op.Div(op.Shape(w, start=2), step)
    pairs = op.Concat(op.Unsqueeze(taps, one), op.Unsqueeze(step, one), axis=1)
    split = op.Reshape(pairs, op.Constant(value_ints=[-1]))
    lacking = op.Expand(one, op.Constant(value_ints=[6]) - op.Shape(split))
    rest = op.Constant(value_ints=[-1])
    apart = op.Reshape(w, op.Concat(rest, lacking, split, axis=0))
    phases = op.Transpose(apart, perm=[0, 2, 4, 6, 1, 3, 5])
    return op.Reshape(phases, op.Concat(op.Shape(w, end=1), rest, taps, axis=0))


@script(PIECES, default_opset=op)
def EachPhase(v: FLOAT, strides: Sequence[int]) -> FLOAT:
    """Repeat each entry of [O] for every phase."""
    count = op.ReduceProd(op.Constant(value_ints=strides), keepdims=1)
    column = op.Unsqueeze(v, op.Constant(value_ints=[1]))
    return op.Reshape(op.Expand(column, op.Concat(op.Shape(v), count, axis=0)), [-1])


@script(PIECES, default_opset=op)
def PhaseProducts(
    X: FLOAT,
    w: FLOAT,
    b: FLOAT,
    column: FLOAT,
    quarter: FLOAT,
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    output_padding: Sequence[int],
    group: int,
) -> tuple[FLOAT, FLOAT, FLOAT]:
    """Return the same for each phase, as one convolution if strides divide the kernel.

    Pixels of the output whose positions have the same remainder by the stride are a phase. Their
    patches have the same taps of the filter, and the patches of all phases have the same pixels.
    """
    w = ByPhase(w, strides=strides)
    spare = op.Shape(w, start=2) - op.Constant(value_int=1)
    x = Surrounded(X, spare, spare)
    g = op.Conv(x, Filters(w, group=group), EachPhase(b, strides=strides), group=group)
    box, pixel_sq = BoxAndPixels(X, w, quarter, group=group)
    row = op.Conv(Surrounded(pixel_sq, spare, spare), box, group=group)
    return g, row, EachPhase(column, strides=strides)


@script(PIECES, default_opset=op)
def PhaseFilter(strides: Sequence[int]) -> FLOAT:
    """Return [P, 1, *strides], whose filter i has a one at tap i. P is the number of phases."""
    step = op.Constant(value_ints=strides)
    count = op.ReduceProd(step, keepdims=0)
    phases = op.Range(op.Constant(value_int=0), count, op.Constant(value_int=1))
    # EyeLike would be one op, but OpenCV and tract do not support it here.
    eye = op.Cast(op.Unsqueeze(phases, op.Constant(value_ints=[1])) == phases, to=FLOAT.dtype)
    return op.Reshape(eye, op.Concat(op.Shape(phases), op.Constant(value_ints=[1]), step, axis=0))


@script(PIECES, default_opset=op)
def Interleaved(Y: FLOAT, B: FLOAT, strides: Sequence[int], pads: Sequence[int]) -> FLOAT:
    """Return [B, O, *S'] from [B, O · P, *S''], the P phases of each output, less the pads.

    Every pixel of the output has one tap in this transposed convolution.
    """
    phases = PhaseFilter(strides=strides)
    batch = op.Shape(Y, end=1)
    images = op.Concat(batch * op.Shape(B), op.Shape(phases, end=1), op.Shape(Y, start=2), axis=0)
    whole = op.ConvTranspose(
        op.Reshape(Y, images, allowzero=1),
        phases,
        kernel_shape=strides,
        strides=strides,
        pads=pads,
    )
    size = op.Concat(batch, op.Shape(B), op.Shape(whole, start=2), axis=0)
    return op.Reshape(whole, size, allowzero=1)


@script(PIECES, default_opset=op)
def Whole(Y: FLOAT, B: FLOAT, strides: Sequence[int], pads: Sequence[int]) -> FLOAT:
    """Replace `Interleaved` if the output is not in phases."""
    return op.Identity(Y)


PARTS = (ByGroup, FilterNorm, BoxAndPixels, Filters, Surrounded, ByPhase, EachPhase, PhaseFilter)
"""The pieces that the others call, which have no variants."""
