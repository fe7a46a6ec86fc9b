"""Conversion of images from channels-first to channels-last, and the norms of their pixels."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from nmn_export.kernels.yat import truncate_to_tf32

BLOCK_SIZE_PIXEL = 32
BLOCK_SIZE_FEAT = 64
WARPS = 8

FEW_FEATS: tl.constexpr = tl.constexpr(16)
"""Features per step of pixels that have no more than this; larger steps would waste lanes."""


@triton.jit
def pack_features(
    input_pointers, output_pointers, pixel_mask, pixel_dim, feat_dim, padded_feat_dim,
    TRUNCATE: tl.constexpr, BLOCK_SIZE_PIXEL: tl.constexpr, BLOCK_SIZE_FEAT: tl.constexpr,
):  # fmt: skip
    """Copy the features of BLOCK_SIZE_PIXEL pixels, and return their squared norms in float32.

    `input_pointers` and `output_pointers` point to the first feature of each pixel, and
    `pixel_mask` is false beyond the last pixel; all three are of shape [BLOCK_SIZE_PIXEL]. The
    other arguments are those of `pack_pixels_kernel`.
    """
    square = tl.zeros([BLOCK_SIZE_PIXEL, BLOCK_SIZE_FEAT], tl.float32)
    for start in range(0, padded_feat_dim, BLOCK_SIZE_FEAT):
        feat = start + tl.arange(0, BLOCK_SIZE_FEAT)
        mask = pixel_mask[:, None] & (feat < feat_dim)[None, :]
        pointers = input_pointers[:, None] + (feat.to(tl.int64) * pixel_dim)[None, :]
        x = tl.load(pointers, mask=mask, other=0.0)
        wide = x.to(tl.float32)
        if TRUNCATE:
            wide = truncate_to_tf32(wide)
        square += wide * wide
        mask = pixel_mask[:, None] & (feat < padded_feat_dim)[None, :]
        tl.store(output_pointers[:, None] + feat[None, :], x, mask=mask)
    return tl.sum(square, axis=1)


@triton.jit
def pack_pixels_kernel(
    input_pointer,
    output_pointer,
    norm_pointer,
    pixel_dim,
    feat_dim,
    padded_feat_dim,
    TRUNCATE: tl.constexpr,
    BLOCK_SIZE_PIXEL: tl.constexpr,
    BLOCK_SIZE_FEAT: tl.constexpr,
):
    """Convert images from channels-first to channels-last, and write the norms of the pixels.

    A program converts BLOCK_SIZE_PIXEL pixels of one image and one group. Reads run along pixels
    and writes along features; the tile is transposed in shared memory in between.

    Args:
        input_pointer: Pointer to the images. Must be of shape [images, groups, feat_dim,
            pixel_dim].
        output_pointer: Pointer to the result. Must be of shape [images, pixel_dim, groups,
            padded_feat_dim].
        norm_pointer: Squared norm over a group's features, float32. Must be of shape [images,
            pixel_dim, groups].
        pixel_dim: Pixels per image.
        feat_dim: Features per group.
        padded_feat_dim: Features per group with the zeros that pad them.
        TRUNCATE: Whether to square the values that a TF32 product reads.
        BLOCK_SIZE_PIXEL: Pixels per program.
        BLOCK_SIZE_FEAT: Features per step.
    """
    blocks = tl.cdiv(pixel_dim, BLOCK_SIZE_PIXEL)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    group, groups = tl.program_id(1), tl.num_programs(1)
    pixel = tl.program_id(0) % blocks * BLOCK_SIZE_PIXEL + tl.arange(0, BLOCK_SIZE_PIXEL)
    mask = pixel < pixel_dim
    input_pointers = input_pointer + (image * groups + group) * feat_dim * pixel_dim + pixel
    slot = (image * pixel_dim + pixel) * groups + group
    output_pointers = output_pointer + slot * padded_feat_dim
    if padded_feat_dim <= FEW_FEATS:
        norm = pack_features(
            input_pointers, output_pointers, mask, pixel_dim, feat_dim, padded_feat_dim,
            TRUNCATE, BLOCK_SIZE_PIXEL, FEW_FEATS,
        )  # fmt: skip
    else:
        norm = pack_features(
            input_pointers, output_pointers, mask, pixel_dim, feat_dim, padded_feat_dim,
            TRUNCATE, BLOCK_SIZE_PIXEL, BLOCK_SIZE_FEAT,
        )  # fmt: skip
    tl.store(norm_pointer + slot, norm, mask=mask)


def pack_pixels(
    images: Tensor, group: int, padded_feat_dim: int, *, truncate: bool = False
) -> tuple[Tensor, Tensor]:
    """Return contiguous images [B, C, *S] as [B · S, group, padded features], and float32 norms.

    Args:
        images: Any number of axes, contiguous.
        group: Number of groups of channels.
        padded_feat_dim: Features per group with the zeros that pad them.
        truncate: Whether norms are those of the values that a TF32 product reads.

    Returns:
        Pixels, and their squared norms, float32 [B · S, group].
    """
    image_dim, pixel_dim = images.shape[0], images.shape[2:].numel()
    shape = (image_dim * pixel_dim, group)
    pixels = images.new_empty(*shape, padded_feat_dim)
    norms = images.new_empty(shape, dtype=torch.float32)
    if not norms.numel():
        return pixels, norms
    blocks = image_dim * triton.cdiv(pixel_dim, BLOCK_SIZE_PIXEL)
    with torch.cuda.device_of(images):  # type: ignore[no-untyped-call]
        pack_pixels_kernel[(blocks, group)](
            images,
            pixels,
            norms,
            pixel_dim,
            images.shape[1] // group,
            padded_feat_dim,
            TRUNCATE=truncate,
            BLOCK_SIZE_PIXEL=BLOCK_SIZE_PIXEL,
            BLOCK_SIZE_FEAT=BLOCK_SIZE_FEAT,
            num_warps=WARPS,
        )
    return pixels, norms
