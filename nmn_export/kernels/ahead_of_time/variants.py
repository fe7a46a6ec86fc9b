"""Which kernels are compiled ahead of time: the schedules, dtypes and tiles that plans choose."""

from collections.abc import Iterator

from nmn_export.kernels import row_norms, weights_kernel
from nmn_export.kernels.ahead_of_time.variant import Mode, Variant, make_variant
from nmn_export.kernels.conv import channels_last
from nmn_export.kernels.conv.variants import conv_variants
from nmn_export.kernels.dense.variants import dense_variants

MODES = (
    Mode("fp16", "fp16", "fp16", "ieee"),
    Mode("bf16", "bf16", "bf16", "ieee"),
    Mode("fp32_bf16x3", "fp32", "bf16", "bf16x3"),
    Mode("fp32_bf16x6", "fp32", "bf16", "bf16x6"),
)

_OPTIONS = {"num_warps": 4, "num_stages": 3}

_NORM_REGISTERS = 96
"""For rows of any stride: told nothing, the assembler of Triton 3.6 spills to stay at 72."""


def variants(capability: int) -> Iterator[Variant]:
    """Yield what is compiled for `capability`."""
    for dtype in ("fp16", "bf16", "fp32"):
        yield _norm(dtype, even=True)
        yield _norm(dtype, even=False)
        yield _prepare_weight(dtype)
        yield _pack_pixels(dtype)
    for mode in MODES:
        yield from dense_variants(mode, capability)
        yield from conv_variants(mode, capability)


def _norm(dtype: str, *, even: bool) -> Variant:
    """Take the norms of rows a multiple of 16 elements apart, or of any stride: K features, say."""
    return make_variant(
        f"row_norm_{dtype}" + "_general" * (not even),
        "",
        row_norms.row_norm_kernel,
        {"input_pointer": dtype},
        ("input_row_stride",) if even else (),
        {
            "TRUNCATE": False,
            "BLOCK_SIZE_ROW": row_norms.BLOCK_SIZE_ROW,
            "BLOCK_SIZE_FEAT": row_norms.BLOCK_SIZE_FEAT,
        },
        _OPTIONS if even else _OPTIONS | {"maxnreg": _NORM_REGISTERS},
        f"rows / {row_norms.BLOCK_SIZE_ROW}",
        wants_wgmma=False,
    )


def _prepare_weight(dtype: str) -> Variant:
    """Make three planes of float32, of which the first two are those of bf16x3."""
    split = dtype == "fp32"
    return make_variant(
        f"prepare_weight_{dtype}",
        "",
        weights_kernel.prepare_weight_kernel,
        {
            "weight_pointer": dtype,
            "bias_pointer": dtype,
            "plane_pointer": "bf16" if split else dtype,
        },
        ("padded_feat_dim", "plane_stride"),
        {
            "PLANES": 3 if split else 1,
            "BLOCK_SIZE_FEAT": weights_kernel.BLOCK_SIZE_FEAT,
            "BLOCK_SIZE_TAP": weights_kernel.BLOCK_SIZE_TAP,
        },
        _OPTIONS,
        "rows of the weight",
        wants_wgmma=False,
    )


def _pack_pixels(dtype: str) -> Variant:
    return make_variant(
        f"pack_pixels_{dtype}",
        "",
        channels_last.pack_pixels_kernel,
        {"input_pointer": dtype, "output_pointer": dtype},
        (),
        {
            "TRUNCATE": False,
            "BLOCK_SIZE_PIXEL": channels_last.BLOCK_SIZE_PIXEL,
            "BLOCK_SIZE_FEAT": channels_last.BLOCK_SIZE_FEAT,
        },
        _OPTIONS | {"num_warps": channels_last.WARPS},
        f"images · (pixels of one / {channels_last.BLOCK_SIZE_PIXEL}) × groups",
        wants_wgmma=False,
    )
