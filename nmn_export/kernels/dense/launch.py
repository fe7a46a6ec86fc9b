"""YatDense from PyTorch: input checks, choice of kernel and tile, launch."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from nmn_export.errors import NmnExportError
from nmn_export.kernels.arrival_counters import arrival_counters
from nmn_export.kernels.dense.kernel import (
    yat_dense_forward_kernel,
    yat_dense_split_forward_kernel,
)
from nmn_export.kernels.dense.weights import prepare_dense
from nmn_export.kernels.device import Device, device_of
from nmn_export.kernels.row_norms import row_norms
from nmn_export.kernels.tile_size import (
    PROGRAMS_PER_PROCESSOR,
    Tile,
    large_tile,
    small_tile,
)
from nmn_export.kernels.weight_cache import cached
from nmn_export.kernels.weights import (
    ALIGNMENT,
    Float32Precision,
    Prepared,
    aligned,
    precision_for,
)

Schedule = Literal["grouped", "row_stationary", "split"]

GROUP_SIZE_M = 8
"""Row blocks that share columns in the L2 cache: the middle of the usual range."""

MOST_PARTS = 16
"""Maximum number of parts of a tile's features. Each writes its dot products to L2."""

DESCRIPTOR_ALIGNMENT = 16
"""Bytes: base addresses and row strides that the tensor memory accelerator supports."""


@dataclass(frozen=True)
class DensePlan:
    """How one product is computed.

    Attributes:
        schedule: "split" is the split-K kernel. The others are those of the persistent kernel.
        tile: Block sizes.
        programs: Persistent programs, or parts of a tile's features if split.
        descriptors: Whether the tensor memory accelerator copies the operands.
    """

    schedule: Schedule
    tile: Tile
    programs: int
    descriptors: bool = False


def plan_dense(
    batch_dim: int,
    out_feat_dim: int,
    in_feat_dim: int,
    dtype: torch.dtype,
    precision: Float32Precision,
    device: Device,
) -> DensePlan:
    """Choose a plan for an input of [batch_dim, in_feat_dim]."""
    narrow = out_feat_dim % ALIGNMENT != 0
    tile = large_tile(precision, dtype.itemsize, device.capability, narrow)
    row_blocks = triton.cdiv(batch_dim, tile.m)
    tiles = row_blocks * triton.cdiv(out_feat_dim, tile.n)
    if tiles >= device.processors:
        schedule: Schedule = "row_stationary" if row_blocks >= device.processors else "grouped"
        programs = min(tiles, PROGRAMS_PER_PROCESSOR * device.processors)
        # Products on the float32 units do not profit from descriptors, which cost registers.
        descriptors = device.has_descriptors and (dtype.itemsize == 2 or precision != "ieee")
        return DensePlan(schedule, tile, programs, descriptors)
    tile = small_tile(batch_dim, precision, dtype.itemsize, device.capability)
    tiles = triton.cdiv(batch_dim, tile.m) * triton.cdiv(out_feat_dim, tile.n)
    wanted = triton.cdiv(PROGRAMS_PER_PROCESSOR * device.processors, tiles)
    most = triton.cdiv(in_feat_dim, 2 * tile.k)
    return DensePlan("split", tile, max(1, min(wanted, most, MOST_PARTS)))


def yat_dense(x: Tensor, weights: Prepared, plan: DensePlan | None = None) -> Tensor:
    """Compute y = α (⟨x, w⟩ + b)² / (max(‖x‖² + ‖w‖² − 2⟨x, w⟩, 0) + ε), fused.

    Args:
        x: [..., K], any strides, of the dtype and on the device of `weights`.
        weights: Result of `prepare_dense`.
        plan: Kernel and tile; `None` chooses them.

    Returns:
        [..., N], contiguous.

    Raises:
        NmnExportError: `x` does not match `weights`.
    """
    _check_input(x, weights)
    rows = x.reshape(x.shape[:-1].numel(), x.shape[-1])
    if not aligned(rows):
        rows = F.pad(rows, (0, -weights.feat_dim % ALIGNMENT)).contiguous()
    output = x.new_empty(rows.shape[0], weights.planes.shape[1])
    if output.numel():
        plan = plan or plan_dense(
            rows.shape[0], output.shape[1], rows.shape[1], x.dtype, weights.precision, device_of(x)
        )
        launch = _launch_split if plan.schedule == "split" else _launch_persistent
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
            launch(rows, weights, output, plan)
    return output.reshape(*x.shape[:-1], output.shape[1])


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float, alpha: float, spherical: bool
) -> Tensor:
    """Compute `nmn::yat_dense` on a GPU, with the weights prepared now or in an earlier call."""
    precision = precision_for(x.dtype)
    weights = cached(
        weight,
        bias,
        ("dense", x.dtype, precision, epsilon, alpha, spherical),
        lambda: prepare_dense(
            weight, bias, epsilon, alpha, spherical, dtype=x.dtype, precision=precision
        ),
    )
    return yat_dense(x, weights)


def _check_input(x: Tensor, weights: Prepared) -> None:
    if x.dtype != weights.dtype or x.device != weights.planes.device:
        raise NmnExportError(
            f"YatDense's weights were prepared for {weights.dtype} on {weights.planes.device}",
            got=f"{x.dtype} on {x.device}",
            fix="Prepare them for this input, or move the input.",
        )
    if x.ndim == 0 or x.shape[-1] != weights.feat_dim:
        raise NmnExportError(
            f"YatDense takes input of {weights.feat_dim} features",
            got=f"shape {tuple(x.shape)}",
            fix="Make its last dimension that of the weight.",
        )


def _can_describe(rows: Tensor) -> bool:
    """Return whether the tensor memory accelerator can copy tiles of `rows`."""
    row_bytes = rows.stride(0) * rows.element_size()
    return (
        rows.numel() > 0
        and rows.data_ptr() % DESCRIPTOR_ALIGNMENT == 0
        and row_bytes % DESCRIPTOR_ALIGNMENT == 0
    )


def _shared_arguments(rows: Tensor, weights: Prepared, output: Tensor) -> dict[str, Any]:
    """Return the arguments that both kernels have."""
    planes = weights.planes
    return {
        "column_term_pointer": weights.column_term,
        "column_scale_pointer": weights.column_scale,
        "bias_pointer": weights.bias,
        "output_pointer": output,
        "batch_dim": rows.shape[0],
        "out_feat_dim": planes.shape[1],
        "in_feat_dim": rows.shape[1],
        "input_batch_stride": rows.stride(0),
        "weight_out_feat_stride": planes.stride(1),
        "output_batch_stride": output.stride(0),
        "norm_scale": weights.fold.norm_scale,
        "floor": weights.fold.floor,
        "HAS_BIAS": weights.bias is not None,
        "SPHERICAL": weights.column_scale is not None,
        "NEGATIVE": weights.fold.negative,
        "PLANES": planes.shape[0],
        "PRECISION": "tf32" if weights.precision == "tf32" else "ieee",
    }


def _launch_persistent(rows: Tensor, weights: Prepared, output: Tensor, plan: DensePlan) -> None:
    tile, row_stationary = plan.tile, plan.schedule == "row_stationary"
    norms = None
    if not row_stationary:
        norms = row_norms(rows, truncate=weights.precision == "tf32")
    flat = weights.planes.flatten(0, 1)
    sources: list[Tensor | TensorDescriptor] = [rows, flat]
    descriptors = plan.descriptors and _can_describe(rows) and _can_describe(flat)
    if descriptors:
        sources = [
            TensorDescriptor.from_tensor(rows, [tile.m, tile.k]),
            TensorDescriptor.from_tensor(flat, [tile.n, tile.k]),
        ]
    yat_dense_forward_kernel[(plan.programs,)](
        input_source=sources[0],
        norm_pointer=norms,
        weight_source=sources[1],
        **_shared_arguments(rows, weights, output),
        DESCRIPTOR=descriptors,
        EVEN=rows.shape[1] % tile.k == 0,
        ROW_STATIONARY=row_stationary,
        BLOCK_SIZE_M=tile.m,
        BLOCK_SIZE_N=tile.n,
        BLOCK_SIZE_K=tile.k,
        GROUP_SIZE_M=GROUP_SIZE_M,
        **tile.options,
    )


def _launch_split(rows: Tensor, weights: Prepared, output: Tensor, plan: DensePlan) -> None:
    tile, parts = plan.tile, plan.programs
    tiles = triton.cdiv(rows.shape[0], tile.m) * triton.cdiv(output.shape[1], tile.n)
    slots = tiles * parts if parts > 1 else 0
    dots = output.new_empty(slots, tile.m, tile.n, dtype=torch.float32)
    norms = output.new_empty(slots, tile.m, dtype=torch.float32)
    yat_dense_split_forward_kernel[(tiles, parts)](
        input_pointer=rows,
        weight_pointer=weights.planes,
        partial_pointer=dots,
        partial_norm_pointer=norms,
        arrival_pointer=arrival_counters(tiles, rows.device),
        **_shared_arguments(rows, weights, output),
        EVEN=rows.shape[1] % tile.k == 0,
        BLOCK_SIZE_M=tile.m,
        BLOCK_SIZE_N=tile.n,
        BLOCK_SIZE_K=tile.k,
        **tile.options,
    )
