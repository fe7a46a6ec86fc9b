"""What `prepare` does to weights, in Triton: for a host that gets them raw, on the device."""

import triton
import triton.language as tl

from nmn_export.kernels.yat import round_to_bfloat16

BLOCK_SIZE_FEAT = 64
"""Features per step of a filter: as many as fill a cache line when they are written."""

BLOCK_SIZE_TAP = 16
"""Taps per step of a filter, so that reads, which run along taps, use whole cache lines."""


@triton.jit
def store_planes(pointers, x, mask, plane_stride, PLANES: tl.constexpr):
    """Store a tile as the sum of planes, each what those before left over, rounded.

    Args:
        pointers: Into the first plane. Must be of shape [BLOCK_SIZE_FEAT, BLOCK_SIZE_TAP].
        x: Tile of the weight. Must be of the same shape.
        mask: What to store. Must be of the same shape.
        plane_stride: Elements from one plane to the next, int64.
        PLANES: Planes: 1 for one of the weight's own type, else of bfloat16.
    """
    if PLANES == 1:
        tl.store(pointers, x, mask=mask)
    else:
        for plane in tl.static_range(PLANES):
            part = round_to_bfloat16(x)
            tl.store(pointers + plane * plane_stride, part, mask=mask)
            x -= part.to(tl.float32)


@triton.jit
def prepare_row(
    weight_pointer, plane_pointer, feat_dim, padded_feat_dim, tap_dim, plane_stride, store,
    PLANES: tl.constexpr, BLOCK_SIZE_FEAT: tl.constexpr, BLOCK_SIZE_TAP: tl.constexpr,
):  # fmt: skip
    """Turn [features, taps] into padded [taps, features], and return the squared norm, float32.

    Args:
        weight_pointer: To the row. Must be of shape [feat_dim, tap_dim].
        plane_pointer: To the row of the first plane. Must be of shape [tap_dim, padded_feat_dim].
        feat_dim: As in `prepare_weight_kernel`, and so the others.
        padded_feat_dim: Features with the zeros after them.
        tap_dim: Taps.
        plane_stride: Elements from one plane to the next, int64.
        store: Whether planes are written.
        PLANES: Planes.
        BLOCK_SIZE_FEAT: Features per step.
        BLOCK_SIZE_TAP: Taps per step.
    """
    square = tl.zeros([BLOCK_SIZE_FEAT, BLOCK_SIZE_TAP], tl.float32)
    for tap_start in range(0, tap_dim, BLOCK_SIZE_TAP):
        tap = (tap_start + tl.arange(0, BLOCK_SIZE_TAP))[None, :]
        for feat_start in range(0, padded_feat_dim, BLOCK_SIZE_FEAT):
            feat = (feat_start + tl.arange(0, BLOCK_SIZE_FEAT))[:, None]
            mask = (feat < feat_dim) & (tap < tap_dim)
            x = tl.load(weight_pointer + feat * tap_dim + tap, mask=mask, other=0.0)
            wide = x.to(tl.float32)
            square += wide * wide
            mask = (feat < padded_feat_dim) & (tap < tap_dim) & (store != 0)
            store_planes(
                plane_pointer + tap * padded_feat_dim + feat, x, mask, plane_stride, PLANES
            )
    return tl.sum(tl.sum(square, axis=1), axis=0)


@triton.jit
def prepare_weight_kernel(
    weight_pointer,
    bias_pointer,
    plane_pointer,
    column_term_pointer,
    column_scale_pointer,
    column_bias_pointer,
    bias_dim,
    feat_dim,
    padded_feat_dim,
    tap_dim,
    plane_stride,
    norm_scale,
    term_floor,
    spherical,
    store,
    PLANES: tl.constexpr,
    BLOCK_SIZE_FEAT: tl.constexpr,
    BLOCK_SIZE_TAP: tl.constexpr,
):
    """Do to one row of a weight, a prototype or a filter, what `prepare` does to all of them.

    There may be more than 2^31 elements, but not in a row.

    Args:
        weight_pointer: Pointer to the weight. Must be of shape [rows, feat_dim, tap_dim].
        bias_pointer: Pointer to the bias, of the weight's type. Must be of shape [bias_dim]; not
            looked at if that is 0.
        plane_pointer: Pointer to the planes, of bfloat16 if there are several, else of the weight's
            type. Must be of shape [PLANES, rows, tap_dim, padded_feat_dim]; not looked at unless
            `store`.
        column_term_pointer: (‖w‖² + ε) / |α|, or (1 + ε) / |α| if `spherical`, float32. Must be of
            shape [rows].
        column_scale_pointer: 1 / (‖w‖ + 1e-8), float32. Must be of shape [rows]; not looked at
            unless `spherical`.
        column_bias_pointer: The bias of every row, or 0, float32. Must be of shape [rows].
        bias_dim: As many numbers as there are rows, or 1 for all rows, or 0 for no bias.
        feat_dim: Features.
        padded_feat_dim: Features with the zeros after them.
        tap_dim: Taps; 1 where the weight is a matrix.
        plane_stride: Elements from one plane to the next.
        norm_scale: 1 / |α|, or 0 where α = 0.
        term_floor: ε · norm_scale; so 0, and not the infinite `floor`, where α = 0.
        spherical: Whether rows are divided by their norms, as 0 or 1.
        store: Whether planes are written, as 0 or 1: a weight that is aligned needs none.
        PLANES: Planes that add up to the weight: 1, or 2 or 3 where it is float32.
        BLOCK_SIZE_FEAT: Features per step of a filter; of a prototype, times the next.
        BLOCK_SIZE_TAP: Taps per step of a filter.
    """
    row = tl.program_id(0)
    weight_pointer += row.to(tl.int64) * feat_dim * tap_dim
    plane_pointer += row.to(tl.int64) * tap_dim * padded_feat_dim
    plane_stride = plane_stride.to(tl.int64)
    if tap_dim == 1:
        norm = prepare_row(
            weight_pointer, plane_pointer, feat_dim, padded_feat_dim, 1, plane_stride, store,
            PLANES, BLOCK_SIZE_FEAT * BLOCK_SIZE_TAP, 1,
        )  # fmt: skip
    else:
        norm = prepare_row(
            weight_pointer, plane_pointer, feat_dim, padded_feat_dim, tap_dim, plane_stride, store,
            PLANES, BLOCK_SIZE_FEAT, BLOCK_SIZE_TAP,
        )  # fmt: skip
    numerator = tl.where(spherical != 0, 1.0, norm)
    tl.store(column_term_pointer + row, numerator * norm_scale + term_floor)
    scale = 1.0 / (tl.sqrt(norm) + 1e-8)
    tl.store(column_scale_pointer + row, scale, mask=spherical != 0)
    bias = tl.load(bias_pointer + tl.minimum(row, bias_dim - 1), mask=bias_dim > 0, other=0.0)
    tl.store(column_bias_pointer + row, bias.to(tl.float32))
