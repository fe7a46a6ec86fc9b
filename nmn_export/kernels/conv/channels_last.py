"""Images brought from channels first to pixels first, their norms taken on the way."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from nmn_export.kernels.yat import truncate_to_tf32

BLOCK_SIZE_PIXEL = 32
BLOCK_SIZE_FEAT = 64
WARPS = 8

FEW_FEATS: tl.constexpr = tl.constexpr(16)
"""Where there are no more, a step takes no more: most lanes would have nothing to do."""


@triton.jit
def pack_features(
    input_pointers, output_pointers, pixel_mask, pixel_dim, feat_dim, padded_feat_dim,
    TRUNCATE: tl.constexpr, BLOCK_SIZE_PIXEL: tl.constexpr, BLOCK_SIZE_FEAT: tl.constexpr,
):  # fmt: skip
    """Copy the features of some pixels, and return their squared norms in float32.

    Args:
        input_pointers: To the first feature of each pixel. Must be of shape [BLOCK_SIZE_PIXEL].
        output_pointers: To where the first feature goes. Must be of shape [BLOCK_SIZE_PIXEL].
        pixel_mask: Which pixels there are. Must be of shape [BLOCK_SIZE_PIXEL].
        pixel_dim: As in `pack_pixels_kernel`, and so the others: elements between features, too.
        feat_dim: Features of a group.
        padded_feat_dim: Features with the zeros after them.
        TRUNCATE: Whether to square what a TF32 product sees.
        BLOCK_SIZE_PIXEL: Pixels.
        BLOCK_SIZE_FEAT: Features per step.
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
    """Bring images from channels first to pixels first, and write the squared norms of the pixels.

    One program does BLOCK_SIZE_PIXEL pixels of one image and one group. Reads run along pixels and
    writes along features: between them the tile changes threads in shared memory.

    Args:
        input_pointer: Pointer to the images. Must be of shape [images, groups, feat_dim,
            pixel_dim].
        output_pointer: Pointer to the same, with zeros after the features. Must be of shape
            [images, pixel_dim, groups, padded_feat_dim].
        norm_pointer: Σ x² over a group's features, float32. Must be of shape [images, pixel_dim,
            groups].
        pixel_dim: Pixels of an image.
        feat_dim: Features of a group.
        padded_feat_dim: Features with the zeros after them.
        TRUNCATE: Whether to square what a TF32 product sees of the input.
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
        group: Groups that the channels fall into.
        padded_feat_dim: Features of a group with the zeros after them.
        truncate: Whether norms are those of the values that a TF32 product sees.

    Returns:
        Pixels, and their squared norms as [B · S, group].
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
