"""A host of the compiled kernels: passes arguments by name, and checks their divisibility by 16."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nmn_export.kernels.ahead_of_time.variant import Variant
from nmn_export.kernels.ahead_of_time.variants import variants
from nmn_export.kernels.conv.images import Geometry
from nmn_export.kernels.weights import ALIGNMENT, Fold, fold
from nmn_export.ops.conv import output_size
from nmn_export.ops.conv_transpose import output_size as transposed_output_size

NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}

COUNTERS = {torch.int32: "i32"}

MODES = NAMES | {torch.float32: "fp32_bf16x6"}

AXES = ("depth", "height", "width")


@functools.cache
def by_name() -> Mapping[str, Variant]:
    return {variant.name: variant for variant in variants(80)}


def blocks(count: int, name: str, constant: str) -> int:
    """Return the number of blocks of a variant that `count` elements need."""
    return -(-count // by_name()[name].constants[constant])


def launch(name: str, grid: tuple[int, ...], **arguments: Any) -> None:
    """Launch a variant in the interpreter, and check its arguments against the manifest."""
    variant = by_name()[name]
    assert list(arguments) == list(variant.types)
    for parameter, kind in variant.types.items():
        value = arguments[parameter]
        if kind.startswith("*"):
            assert (NAMES | COUNTERS)[value.dtype] == kind[1:], parameter
        else:
            assert isinstance(value, float if kind == "fp32" else int), parameter
    for parameter in variant.divisible:
        value = arguments[parameter]
        number = value.data_ptr() if isinstance(value, Tensor) else value
        assert number % 16 == 0, f"{name} requires that {parameter} is a multiple of 16"
    variant.kernel[grid](**arguments, **variant.constants)


@dataclass(frozen=True)
class Weights:
    """Result of `prepare_weight`; its memory was initialized with NaN."""

    planes: Tensor
    column_term: Tensor
    column_scale: Tensor
    bias: Tensor


def prepare_weight(
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    spherical: bool = False,
    store: bool = True,
    transposed_groups: int = 0,
) -> Weights:
    """Prepare a raw weight, [N, K] or [O, C / group, *K], or [C, O / group, *K] of some groups."""
    rows, feat_dim = weight.shape[:2]
    taps = weight.shape[2:].numel()
    group_rows, row_stride, feat_stride = rows, feat_dim * taps, taps
    if transposed_groups:
        feat_dim, group_rows = rows // transposed_groups, feat_dim
        rows, row_stride, feat_stride = group_rows * transposed_groups, taps, group_rows * taps
    padded = feat_dim + -feat_dim % ALIGNMENT
    split = weight.dtype == torch.float32
    planes = weight.new_full(
        (3 if split else 1, rows, taps, padded) if store else (0, 0, 0, 0),
        math.nan,
        dtype=torch.bfloat16 if split else weight.dtype,
    )
    column = weight.new_full((rows,), math.nan, dtype=torch.float32)
    made = Weights(planes, column, column.clone() if spherical else column[:0], column.clone())
    folded = fold(epsilon, alpha)
    launch(
        f"prepare_weight_{NAMES[weight.dtype]}",
        (rows,),
        weight_pointer=weight,
        bias_pointer=weight.new_empty(0) if bias is None else bias,
        plane_pointer=made.planes,
        column_term_pointer=made.column_term,
        column_scale_pointer=made.column_scale,
        column_bias_pointer=made.bias,
        bias_dim=0 if bias is None else len(bias),
        feat_dim=feat_dim,
        padded_feat_dim=padded,
        tap_dim=taps,
        group_row_dim=group_rows,
        weight_row_stride=row_stride,
        weight_feat_stride=feat_stride,
        plane_stride=rows * taps * padded,
        norm_scale=folded.norm_scale,
        term_floor=epsilon * folded.norm_scale,
        spherical=int(spherical),
        store=int(store),
    )
    return made


def row_norms(rows: Tensor) -> Tensor:
    """Return the squared norms of rows of any stride."""
    name = f"row_norm_{NAMES[rows.dtype]}_general"
    norm = rows.new_empty(len(rows), dtype=torch.float32)
    launch(
        name,
        (blocks(len(rows), name, "BLOCK_SIZE_ROW"),),
        input_pointer=rows,
        norm_pointer=norm,
        row_dim=len(rows),
        feat_dim=rows.shape[1],
        input_row_stride=rows.stride(0),
    )
    return norm


def pack_pixels(images: Tensor, group: int, padded_feat_dim: int) -> tuple[Tensor, Tensor]:
    """Convert [B, C, *S] to [B · S, group, padded features], and compute the norms."""
    name = f"pack_pixels_{NAMES[images.dtype]}"
    batch, channels, pixel_dim = *images.shape[:2], images.shape[2:].numel()
    pixels = images.new_full((batch * pixel_dim, group, padded_feat_dim), math.nan)
    norms = images.new_full((batch * pixel_dim, group), math.nan, dtype=torch.float32)
    launch(
        name,
        (batch * blocks(pixel_dim, name, "BLOCK_SIZE_PIXEL"), group),
        input_pointer=images,
        output_pointer=pixels,
        norm_pointer=norms,
        pixel_dim=pixel_dim,
        feat_dim=channels // group,
        padded_feat_dim=padded_feat_dim,
    )
    return pixels, norms


def dense(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    spherical: bool,
) -> Tensor:
    """Compute YatDense for any K, with rows of stride K."""
    rows, aligned = x.reshape(-1, x.shape[-1]), weight.shape[1] % ALIGNMENT == 0
    in_place = aligned and weight.dtype != torch.float32
    weights = prepare_weight(weight, bias, epsilon, alpha, spherical, store=not in_place)
    output = x.new_full((len(rows), len(weight)), math.nan)
    suffix = "_spherical" * spherical + "_negative" * (alpha < 0)
    scale = {"column_scale_pointer": weights.column_scale} if spherical else {}
    planes = weight if in_place else weights.planes
    launch(
        f"yat_dense_{MODES[x.dtype]}_general{suffix}",
        (2,),
        input_source=rows,
        norm_pointer=row_norms(rows),
        weight_source=planes,
        column_term_pointer=weights.column_term,
        **scale,
        bias_pointer=weights.bias,
        output_pointer=output,
        batch_dim=len(rows),
        out_feat_dim=len(weight),
        in_feat_dim=weight.shape[1],
        input_batch_stride=rows.stride(0),
        weight_out_feat_stride=planes.shape[-1],
        output_batch_stride=len(weight),
        norm_scale=fold(epsilon, alpha).norm_scale,
        floor=fold(epsilon, alpha).floor,
    )
    return output.reshape(*x.shape[:-1], -1)


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...],
    group: int,
) -> Tensor:
    """Compute YatConv for any number of channels; input and output are channels-first."""
    weights = prepare_weight(weight, bias, epsilon, alpha)
    geometry = Geometry.of("YatConv", x.ndim - 2, strides, pads, dilations)
    sizes = output_size(x.shape[2:], weight.shape[2:], strides, pads, dilations)
    patch_dim = len(x) * math.prod(sizes)
    folded = fold(epsilon, alpha)
    return _images("yat_conv", x, weight, weights, folded, geometry, group, sizes, patch_dim)


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    alpha: float,
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...],
    output_padding: tuple[int, ...],
    group: int,
) -> Tensor:
    """Compute YatConvTranspose for any number of channels; tensors are channels-first."""
    weights = prepare_weight(weight, bias, epsilon, alpha, transposed_groups=group)
    geometry = Geometry.of("YatConvTranspose", x.ndim - 2, strides, pads, dilations)
    sizes = transposed_output_size(
        x.shape[2:], weight.shape[2:], strides, pads, dilations, output_padding
    )
    phase = [-(-size // stride) for size, stride in zip(sizes, strides, strict=True)]
    pairs = zip(geometry.strides, geometry.dilations, strict=True)
    return _images(
        "yat_conv_transpose", x, weight, weights, fold(epsilon, alpha), geometry, group, sizes,
        len(x) * math.prod(phase), math.prod(strides),
        **_axes("{}_tap_stride", [stride // math.gcd(stride, d) for stride, d in pairs]),
    )  # fmt: skip


def _axes(name: str, values: Sequence[int]) -> dict[str, int]:
    return {name.format(axis): value for axis, value in zip(AXES, values, strict=True)}


def _images(
    kernel: str,
    x: Tensor,
    weight: Tensor,
    weights: Weights,
    folded: Fold,
    geometry: Geometry,
    group: int,
    out_size: Sequence[int],
    patch_dim: int,
    phases: int = 1,
    **arguments: int,
) -> Tensor:
    """Launch the general variant of a kernel of images."""
    feat_dim, filters = x.shape[1] // group, len(weights.bias)
    pixels, norms = pack_pixels(x, group, feat_dim)
    lead = (1,) * (5 - x.ndim)
    output = x.new_full((len(x), filters, *out_size), math.nan)
    name = f"{kernel}_{MODES[x.dtype]}_general" + "_negative" * folded.negative
    column_blocks = blocks(filters // group, name, "BLOCK_SIZE_N")
    launch(
        name,
        (blocks(patch_dim, name, "BLOCK_SIZE_M") * column_blocks * phases, group),
        input_pointer=pixels,
        norm_pointer=norms,
        weight_pointer=weights.planes,
        column_term_pointer=weights.column_term,
        bias_pointer=weights.bias,
        output_pointer=output,
        patch_dim=patch_dim,
        in_feat_dim=feat_dim,
        out_feat_dim=filters // group,
        **_axes("{}_dim", (*lead, *x.shape[2:])),
        **_axes("out_{}_dim", (*lead, *out_size)),
        **_axes("kernel_{}", (*lead, *weight.shape[2:])),
        **_axes("{}_stride", geometry.strides),
        **_axes("{}_pad", geometry.pads),
        **_axes("{}_dilation", geometry.dilations),
        **arguments,
        input_pixel_stride=x.shape[1],
        norm_pixel_stride=group,
        weight_plane_stride=weights.planes.stride(0),
        weight_out_feat_stride=weights.planes.stride(1),
        output_batch_stride=output.stride(0),
        output_feat_stride=math.prod(out_size),
        output_pixel_stride=1,
        norm_scale=folded.norm_scale,
        floor=folded.floor,
    )
    return output


def linear_attention(
    qf: Tensor, kf: Tensor, v: Tensor, epsilon: float, signed: bool, segment_chunks: int
) -> Tensor:
    """Compute causal linear attention of [..., L, features], whose last axes are aligned."""
    name = f"linear_attention_{{}}_{NAMES[v.dtype]}"
    constants = by_name()[name.format("sum")].constants
    heads, (length, feat_dim), value_dim = v[..., 0, 0].numel(), qf.shape[-2:], v.shape[-1]
    chunks = -(-length // constants["BLOCK_SIZE_M"])
    segments = -(-chunks // segment_chunks)

    def nan(*shape: int) -> Tensor:
        return qf.new_full(shape, math.nan, dtype=torch.float32)

    sums, k_sums = nan(heads, chunks, feat_dim, value_dim), nan(heads, chunks, feat_dim)
    totals, k_totals = nan(heads, segments, feat_dim, value_dim), nan(heads, segments, feat_dim)
    sizes = {
        "length": length,
        "feat_dim": feat_dim,
        "value_dim": value_dim,
        "chunks": chunks,
        "segment_chunks": segment_chunks,
    }
    tiles = blocks(feat_dim, name.format("sum"), "BLOCK_SIZE_K")
    launch(
        name.format("sum"),
        (heads * tiles * blocks(value_dim, name.format("sum"), "BLOCK_SIZE_N"), segments),
        k_pointer=kf,
        value_pointer=v,
        sum_pointer=sums,
        k_sum_pointer=k_sums,
        segment_sum_pointer=totals,
        segment_k_sum_pointer=k_totals,
        **sizes,
    )
    output = torch.full_like(v, math.nan)
    launch(
        name.format("output"),
        (heads * blocks(value_dim, name.format("output"), "BLOCK_SIZE_N"), chunks),
        q_pointer=qf,
        k_pointer=kf,
        value_pointer=v,
        sum_pointer=sums,
        k_sum_pointer=k_sums,
        segment_sum_pointer=totals.cumsum(1) - totals,
        segment_k_sum_pointer=k_totals.cumsum(1) - k_totals,
        output_pointer=output,
        **sizes,
        epsilon=epsilon,
        signed_guard=int(signed),
    )
    return output
