"""The kernels shared by the ops that are compiled ahead of time."""

from collections.abc import Iterator

from nmn_export.kernels import row_norms, weight_preparation_kernel
from nmn_export.kernels.ahead_of_time.variant import TRITON_DTYPES, Variant, make_variant

_OPTIONS = {"num_warps": 4, "num_stages": 3}

_NORM_REGISTERS = 96
"""Register limit for rows of any stride. Without it, the assembler of Triton 3.6 aims at 72 and
spills."""


def shared_variants(_capability: int) -> Iterator[Variant]:
    """Yield the kernels that compute norms and prepare weights, the same for every GPU."""
    for dtype in TRITON_DTYPES:
        yield _norm(dtype, even=True)
        yield _norm(dtype, even=False)
        yield _prepare_weight(dtype)


def _norm(dtype: str, *, even: bool) -> Variant:
    """Return the kernel for any stride or, if `even`, for strides that are multiples of 16."""
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
    """Return the kernel for a dtype. For float32 it writes three planes; bf16x3 uses two."""
    split = dtype == "fp32"
    return make_variant(
        f"prepare_weight_{dtype}",
        "",
        weight_preparation_kernel.prepare_weight_kernel,
        {
            "weight_pointer": dtype,
            "bias_pointer": dtype,
            "plane_pointer": "bf16" if split else dtype,
        },
        ("padded_feat_dim", "plane_stride"),
        {
            "PLANES": 3 if split else 1,
            "BLOCK_SIZE_FEAT": weight_preparation_kernel.BLOCK_SIZE_FEAT,
            "BLOCK_SIZE_TAP": weight_preparation_kernel.BLOCK_SIZE_TAP,
        },
        _OPTIONS,
        "rows of the weight",
        wants_wgmma=False,
    )
