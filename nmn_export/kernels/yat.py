"""The ⵟ-product of tiles in Triton. Nothing here loads or stores.

The formula is that of `nmn_export.ops.yat`,

    y = α (s + b)² / (max(‖x‖² + ‖w‖² − 2s, 0) + ε),    s = ⟨x, w⟩,

with the denominator divided by |α| and ε moved into the maximum. An element then costs one
addition, one fused multiply-add, one maximum, one reciprocal root and two products:

    y = ±((s + b) / √d)²,    d = max(‖x‖²/|α| + (‖w‖² + ε)/|α| − (2/|α|) s, ε/|α|).

A 128 × 256 tile with a division instead of the root spills. Squaring after the root also cannot
overflow before y does.
"""

import triton
import triton.language as tl

INTERPRETED: tl.constexpr = tl.constexpr(triton.knobs.runtime.interpret)
"""Whether kernels run in Triton's interpreter, which does not support products of bfloat16."""

FLOAT16_MAX: tl.constexpr = tl.constexpr(65504.0)
BFLOAT16_MAX: tl.constexpr = tl.constexpr(3.3895313892515355e38)


@triton.jit
def yat(
    dot,
    row_term,
    column_term,
    bias,
    dot_scale,
    floor,
    NEGATIVE: tl.constexpr,
    dtype: tl.constexpr,
):
    """Turn a tile of dot products into ⵟ-products of type `dtype`.

    NaN is preserved. Values too large for a half precision become its largest finite value.

    Args:
        dot: s, float32. Must be of shape [BLOCK_SIZE_M, BLOCK_SIZE_N], as is the result.
        row_term: ‖x‖² / |α|. Must be of shape [BLOCK_SIZE_M, 1].
        column_term: (‖w‖² + ε) / |α|. Must be of shape [1, BLOCK_SIZE_N].
        bias: b. Must be of shape [1, BLOCK_SIZE_N], or the number 0.
        dot_scale: −2 / |α|.
        floor: ε / |α|, the denominator if the distance is clamped at zero.
        NEGATIVE: Whether α < 0.
        dtype: Type of the result.
    """
    distance = tl.fma(dot, tl.zeros_like(dot) + dot_scale, row_term + column_term)
    distance = tl.maximum(distance, floor, propagate_nan=tl.PropagateNan.ALL)
    root = (dot + bias) * tl.rsqrt(distance)
    y = root * root
    if dtype == tl.float16:
        y = tl.minimum(y, FLOAT16_MAX, propagate_nan=tl.PropagateNan.ALL)
    if dtype == tl.bfloat16:
        y = tl.minimum(y, BFLOAT16_MAX, propagate_nan=tl.PropagateNan.ALL)
    if NEGATIVE:
        y = -y
    return cast(y, dtype)


@triton.jit
def saturate(y, dtype: tl.constexpr):
    """Cast float32 to `dtype`. NaN is preserved.

    Values too large for a half precision become its largest finite value.
    """
    if dtype == tl.float16:
        y = tl.clamp(y, -FLOAT16_MAX, FLOAT16_MAX, propagate_nan=tl.PropagateNan.ALL)
    if dtype == tl.bfloat16:
        y = tl.clamp(y, -BFLOAT16_MAX, BFLOAT16_MAX, propagate_nan=tl.PropagateNan.ALL)
    return cast(y, dtype)


@triton.jit
def cast(x, dtype: tl.constexpr):
    """Round float32 to `dtype`."""
    if dtype == tl.bfloat16:
        return round_to_bfloat16(x)
    else:
        return x.to(dtype)


@triton.jit
def truncate_to_tf32(x):
    """Clear the 13 bits that a TF32 product ignores, so that norms can be computed without them.

    The tensor cores of sm_90 ignore these bits. Triton rounds in none of the compiled kernels.
    """
    return (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@triton.jit
def round_to_bfloat16(x):
    """Round float32 to the nearest bfloat16, ties to even.

    The interpreter's cast loses the carry into the exponent: 1.999 becomes 1.
    """
    if INTERPRETED:
        bits = x.to(tl.uint32, bitcast=True)
        rounded = bits + 0x7FFF + ((bits >> 16) & 1)
        is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
        high = tl.where(is_nan, bits, rounded) >> 16
        return high.to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        return x.to(tl.bfloat16)


@triton.jit
def product(x, weight, dot, PRECISION: tl.constexpr):
    """Return `dot` + x · weight, accumulated in float32.

    Args:
        x: Must be of shape [BLOCK_SIZE_M, BLOCK_SIZE_K].
        weight: Must be of shape [BLOCK_SIZE_K, BLOCK_SIZE_N] and of the type of `x`.
        dot: float32. Must be of shape [BLOCK_SIZE_M, BLOCK_SIZE_N].
        PRECISION: "tf32", or "ieee" for all other products. It only affects float32 operands.
    """
    if INTERPRETED:
        x = x.to(tl.float32)
        weight = weight.to(tl.float32)
    return tl.dot(x, weight, dot, input_precision=PRECISION)


@triton.jit
def split(x, PLANES: tl.constexpr):
    """Return three tensors, of which the first `PLANES` add up to `x`, the others repeat one.

    If `PLANES` is 1, the first is `x` itself. Otherwise they are bfloat16: rounding to the nearest,
    then the same of what is left.
    """
    if PLANES == 1:
        return x, x, x
    else:
        high = round_to_bfloat16(x)
        rest = x - high.to(tl.float32)
        middle = round_to_bfloat16(rest)
        low = middle
        if PLANES == 3:
            low = round_to_bfloat16(rest - middle.to(tl.float32))
        return high, middle, low


@triton.jit
def split_product(x, high, middle, low, dot, PLANES: tl.constexpr, PRECISION: tl.constexpr):
    """Return `dot` + x · (high + middle + low). `x` is split like the weight; small terms first.

    Args:
        x: Must be of shape [BLOCK_SIZE_M, BLOCK_SIZE_K]; float32 if `PLANES` is not 1.
        high: First plane of the weight. Must be of shape [BLOCK_SIZE_K, BLOCK_SIZE_N].
        middle: Remainder of `high`; ignored if `PLANES` is 1.
        low: Remainder of `middle`; ignored unless `PLANES` is 3.
        dot: float32. Must be of shape [BLOCK_SIZE_M, BLOCK_SIZE_N].
        PLANES: 1 for one product, 2 for three (bf16x3), 3 for six (bf16x6).
        PRECISION: As in `product`.
    """
    if PLANES == 1:
        if PRECISION == "tf32":
            x = truncate_to_tf32(x)
        return product(x, high, dot, PRECISION)
    else:
        x_high, x_middle, x_low = split(x, PLANES)
        if PLANES == 3:
            dot = product(x_low, high, dot, PRECISION)
            dot = product(x_middle, middle, dot, PRECISION)
            dot = product(x_high, low, dot, PRECISION)
        dot = product(x_middle, high, dot, PRECISION)
        dot = product(x_high, middle, dot, PRECISION)
        return product(x_high, high, dot, PRECISION)
