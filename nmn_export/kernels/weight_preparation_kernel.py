"""`weights.prepare` in Triton, for the TensorRT plugin if the engine holds weights as in ONNX."""

import triton
import triton.language as tl

from nmn_export.kernels.yat import round_to_bfloat16

BLOCK_SIZE_FEAT = 64
"""Features per step of a filter. Written to a plane, they fill a cache line."""

BLOCK_SIZE_TAP = 16
"""Taps per step of a filter. Reads run along taps, so this makes them use whole cache lines."""


@triton.jit
def store_planes(pointers, x, mask, plane_stride, PLANES: tl.constexpr):
    """Store a tile in planes that add up to it. Each holds the rounded remainder of those before.

    Args:
        pointers: Into the first plane. Must be of shape [BLOCK_SIZE_FEAT, BLOCK_SIZE_TAP].
        x: Tile of the weight. Must be of the same shape.
        mask: Elements to store. Must be of the same shape.
        plane_stride: Elements from one plane to the next, int64.
        PLANES: Number of planes. A single plane has the weight's dtype, several are bfloat16.
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
    weight_pointer, plane_pointer, feat_dim, padded_feat_dim, tap_dim, weight_feat_stride,
    plane_stride, store,
    PLANES: tl.constexpr, BLOCK_SIZE_FEAT: tl.constexpr, BLOCK_SIZE_TAP: tl.constexpr,
):  # fmt: skip
    """Transpose one row, [feat_dim, tap_dim], to [tap_dim, padded_feat_dim] in every plane.

    `weight_pointer` and `plane_pointer` point to the row, and `plane_stride` is int64. The other
    arguments are those of `prepare_weight_kernel`. Returns the squared norm of the row, float32.
    """
    square = tl.zeros([BLOCK_SIZE_FEAT, BLOCK_SIZE_TAP], tl.float32)
    for tap_start in range(0, tap_dim, BLOCK_SIZE_TAP):
        tap = (tap_start + tl.arange(0, BLOCK_SIZE_TAP))[None, :]
        for feat_start in range(0, padded_feat_dim, BLOCK_SIZE_FEAT):
            feat = (feat_start + tl.arange(0, BLOCK_SIZE_FEAT))[:, None]
            mask = (feat < feat_dim) & (tap < tap_dim)
            x = tl.load(weight_pointer + feat * weight_feat_stride + tap, mask=mask, other=0.0)
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
    group_row_dim,
    weight_row_stride,
    weight_feat_stride,
    plane_stride,
    norm_scale,
    term_floor,
    spherical,
    store,
    PLANES: tl.constexpr,
    BLOCK_SIZE_FEAT: tl.constexpr,
    BLOCK_SIZE_TAP: tl.constexpr,
):
    """Prepare one row of a weight, which is a prototype or a filter, as `weights.prepare` does.

    The weight may have more than 2^31 elements, but not a single row or group.

    Args:
        weight_pointer: Pointer to the weight. Must be of shape [rows, feat_dim, tap_dim], or for
            transposed filters [groups, feat_dim, group_row_dim, tap_dim].
        bias_pointer: Pointer to the bias, of the weight's dtype. Must be of shape [bias_dim].
        plane_pointer: Pointer to the planes, written if `store`. Must be of shape
            [PLANES, rows, tap_dim, padded_feat_dim].
        column_term_pointer: Written; see the table in `nmn_export.kernels`.
        column_scale_pointer: Written if `spherical`; see the table.
        column_bias_pointer: Written: the bias of every row, or 0, float32. Must be of shape [rows].
        bias_dim: Number of rows, or 1 for one bias for all rows, or 0 for no bias.
        feat_dim: Features per tap.
        padded_feat_dim: Features per tap with the zeros that pad them.
        tap_dim: Taps; 1 if the weight is a matrix.
        group_row_dim: Rows per group; all rows if the weight is not transposed.
        weight_row_stride: Elements from one row of a group to the next.
        weight_feat_stride: Elements from one feature of a row to the next.
        plane_stride: Elements from one plane to the next.
        norm_scale: See the table.
        term_floor: ε · norm_scale. Unlike `floor`, it is 0 if α = 0.
        spherical: 1 if rows are divided by their norms, else 0.
        store: 1 if planes are written, else 0. A half-precision weight can be used in place if its
            rows are aligned.
        PLANES: Number of planes: 1, or 2 or 3 for float32.
        BLOCK_SIZE_FEAT: Features per step of a filter. A matrix is read in steps of
            BLOCK_SIZE_FEAT · BLOCK_SIZE_TAP features.
        BLOCK_SIZE_TAP: Taps per step of a filter.
    """
    row = tl.program_id(0)
    weight_pointer += (row // group_row_dim).to(tl.int64) * feat_dim * weight_feat_stride
    weight_pointer += (row % group_row_dim).to(tl.int64) * weight_row_stride
    plane_pointer += row.to(tl.int64) * tap_dim * padded_feat_dim
    plane_stride = plane_stride.to(tl.int64)
    if tap_dim == 1:
        norm = prepare_row(
            weight_pointer, plane_pointer, feat_dim, padded_feat_dim, 1, weight_feat_stride,
            plane_stride, store, PLANES, BLOCK_SIZE_FEAT * BLOCK_SIZE_TAP, 1,
        )  # fmt: skip
    else:
        norm = prepare_row(
            weight_pointer, plane_pointer, feat_dim, padded_feat_dim, tap_dim, weight_feat_stride,
            plane_stride, store, PLANES, BLOCK_SIZE_FEAT, BLOCK_SIZE_TAP,
        )  # fmt: skip
    numerator = tl.where(spherical != 0, 1.0, norm)
    tl.store(column_term_pointer + row, numerator * norm_scale + term_floor)
    scale = 1.0 / (tl.sqrt(norm) + 1e-8)
    tl.store(column_scale_pointer + row, scale, mask=spherical != 0)
    bias = tl.load(bias_pointer + tl.minimum(row, bias_dim - 1), mask=bias_dim > 0, other=0.0)
    tl.store(column_bias_pointer + row, bias.to(tl.float32))
