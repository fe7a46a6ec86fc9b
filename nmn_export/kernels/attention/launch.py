"""YatAttention from PyTorch: input checks, choice of tile and of the parts of keys, launch."""

from dataclasses import asdict

import torch
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.kernels.arrival_counters import arrival_counters
from nmn_export.kernels.attention.kernel import yat_attention_forward_kernel
from nmn_export.kernels.attention.options import Options
from nmn_export.kernels.attention.plan import (
    MOST_FEATURES,
    AttentionPlan,
    Sizes,
    block_features,
    plan_attention,
)
from nmn_export.kernels.device import device_of
from nmn_export.kernels.row_norms import row_norms
from nmn_export.kernels.weights import DTYPES, PLANES, Float32Precision, precision_for


def yat_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    options: Options,
    *,
    is_causal: bool = False,
    key_lengths: Tensor | None = None,
    precision: Float32Precision | None = None,
    plan: AttentionPlan | None = None,
) -> Tensor:
    """Compute attention whose scores are ⵟ-products, fused.

    Args:
        q: Queries, [B, H, Lq, D], any strides; float16, bfloat16 or float32. D is at most 256.
        k: Keys, [B, G, Lk, D], cast to the dtype of `q`. G divides H.
        v: Values, [B, G, Lk, E], cast to the dtype of `q`. E is at most 256.
        mask: Added to the scores; broadcasts to [B, H, Lq, Lk].
        options: Result of `Options.of`.
        is_causal: Whether query i attends to keys up to i + Lk − Lq only.
        key_lengths: int32 [B]. Keys of an element of the batch from its length on are not attended
            to and not read.
        precision: How float32 products are computed; `None` uses PyTorch's setting.
        plan: Tile and number of parts; `None` chooses them.

    Returns:
        [B, H, Lq, E], contiguous, in the dtype of `q`.

    Raises:
        NmnExportError: Shapes or dtypes do not fit, or are not supported.
    """
    _check(q, k, v, mask, key_lengths)
    precision = precision_for(q.dtype, precision)
    q, k, v = (_with_features_in_a_row(t.to(q.dtype)) for t in (q, k, v))
    sizes = Sizes.of(q, v)
    output = q.new_empty(*q.shape[:3], v.shape[3])
    if output.numel():
        plain = mask is None and options.are_plain
        plan = plan or plan_attention(sizes, q.dtype, precision, plain, device_of(q))
        with torch.cuda.device_of(q):  # type: ignore[no-untyped-call]
            _launch(q, k, v, mask, options, sizes, is_causal, key_lengths, precision, plan, output)
    return output


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    epsilon: float,
    scale: float,
    is_causal: bool,
    spherical: bool,
    power: float,
    guard: float,
) -> Tensor:
    """Compute `nmn::yat_attention` on a GPU."""
    options = Options.of(epsilon, scale, spherical, power, guard)
    return yat_attention(q, k, v, mask, options, is_causal=is_causal)


def supports(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    epsilon: float,
    scale: float,
    is_causal: bool,
    spherical: bool,
    power: float,
    guard: float,
) -> bool:
    """Return whether `forward` takes these arguments of `nmn::yat_attention`."""
    del k, mask, is_causal
    try:
        Options.of(epsilon, scale, spherical, power, guard)
    except NmnExportError:
        return False
    return max(q.shape[3], v.shape[3]) <= MOST_FEATURES


def _check(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, key_lengths: Tensor | None
) -> None:
    if q.dtype not in DTYPES:
        raise NmnExportError(
            "The YatAttention kernel takes float16, bfloat16 or float32",
            got=q.dtype,
            fix="Cast the input, or call nmn_export.ops.yat_attention.",
        )
    shapes = " ".join(str(tuple(t.shape)) for t in (q, k, v))
    fits = (
        q.ndim == k.ndim == v.ndim == 4
        and q.shape[0] == k.shape[0]
        and k.shape[:3] == v.shape[:3]
        and q.shape[3] == k.shape[3]
        and k.shape[1] > 0
        and q.shape[1] % k.shape[1] == 0
    )
    if not fits:
        raise NmnExportError(
            "YatAttention takes q [B, H, Lq, D], k [B, G, Lk, D] and v [B, G, Lk, E], G dividing H",
            got=shapes,
            fix="Pass the heads as dimension 1.",
        )
    if max(q.shape[3], v.shape[3]) > MOST_FEATURES:
        raise NmnExportError(
            f"The YatAttention kernel takes at most {MOST_FEATURES} features per head",
            got=shapes,
            fix="Call nmn_export.ops.yat_attention.",
        )
    if mask is not None and not _broadcasts(mask, (*q.shape[:3], k.shape[2])):
        raise NmnExportError(
            "YatAttention takes a mask that broadcasts to [B, H, Lq, Lk]",
            got=f"a mask of {tuple(mask.shape)} with {shapes}",
            fix="Give it a dimension for each of these, of their size or 1.",
        )
    if key_lengths is not None and not (
        key_lengths.shape == q.shape[:1] and key_lengths.dtype == torch.int32
    ):
        raise NmnExportError(
            "YatAttention takes an int32 length of keys for each element of the batch",
            got=f"{key_lengths.dtype} {tuple(key_lengths.shape)}",
            fix=f"Pass int32 ({q.shape[0]},).",
        )


def _broadcasts(mask: Tensor, shape: tuple[int, ...]) -> bool:
    return mask.ndim <= 4 and all(
        size in (1, wanted)
        for size, wanted in zip(reversed(mask.shape), reversed(shape), strict=False)
    )


def _with_features_in_a_row(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(3) == 1 else tensor.contiguous()


def _key_norms(k: Tensor, norms: Tensor, *, truncate: bool) -> Tensor:
    """Write ‖k‖² to `norms`, in the order in which keys are in memory; return it as [B, G, Lk]."""
    order = sorted(range(3), key=k.stride, reverse=True)
    ordered = k.permute(*order, 3)
    row_norms(ordered.flatten(0, 2), norms, truncate=truncate)
    inverse = [order.index(axis) for axis in range(3)]
    return norms.view(ordered.shape[:3]).permute(inverse)


def _expanded(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the mask as [B, H, Lq, Lk]; axes that it does not have, have stride 0."""
    if mask.dtype not in DTYPES:
        mask = mask.to(torch.float32)
    if mask.ndim and mask.stride(-1) > 1:
        mask = mask.contiguous()
    return mask.expand(shape)


def _launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    options: Options,
    sizes: Sizes,
    is_causal: bool,
    key_lengths: Tensor | None,
    precision: Float32Precision,
    plan: AttentionPlan,
    output: Tensor,
) -> None:
    tile, tiles = plan.tile, sizes.tiles(plan.tile)
    scratch = {
        name: q.new_empty(shape, dtype=torch.float32) for name, shape in plan.scratch(sizes).items()
    }
    truncate = precision == "tf32"
    norms = None if plan.split else _key_norms(k, scratch["key_norms"], truncate=truncate)
    shape = (*q.shape[:3], sizes.keys)
    mask = None if mask is None else _expanded(mask, shape)
    features = block_features(sizes.feat_dim)
    yat_attention_forward_kernel[(tiles, plan.parts)](
        query_pointer=q,
        key_pointer=k,
        value_pointer=v,
        mask_pointer=mask,
        key_norm_pointer=norms,
        key_length_pointer=key_lengths,
        output_pointer=output,
        partial_pointer=scratch["partial"] if plan.split else None,
        partial_sum_pointer=scratch["partial_sums"] if plan.split else None,
        arrival_pointer=arrival_counters(tiles, q.device) if plan.split else None,
        key_head_dim=sizes.key_heads,
        group_dim=sizes.group,
        query_dim=sizes.queries,
        key_dim=sizes.keys,
        feat_dim=sizes.feat_dim,
        value_feat_dim=sizes.value_feat_dim,
        causal_offset=sizes.keys - sizes.queries if is_causal else sizes.keys,
        **_strides("query", q, ("batch", "head", "row")),
        **_strides("key", k, ("batch", "head", "row")),
        **_strides("value", v, ("batch", "head", "row")),
        **_strides("mask", mask, ("batch", "head", "row", "key")),
        **_strides("norm", norms, ("batch", "head", "row")),
        **_strides("output", output, ("batch", "head", "row")),
        **asdict(options),
        HAS_MASK=mask is not None,
        OPTIONS=not options.are_plain,
        SPLIT=plan.split,
        PLANES=PLANES[precision],
        PRECISION="tf32" if precision == "tf32" else "ieee",
        BLOCK_SIZE_M=tile.m,
        BLOCK_SIZE_N=tile.n,
        BLOCK_SIZE_K=min(tile.k, features),
        BLOCK_SIZE_FEAT=features,
        BLOCK_SIZE_VALUE_FEAT=block_features(sizes.value_feat_dim),
        **tile.options,
    )


def _strides(name: str, tensor: Tensor | None, axes: tuple[str, ...]) -> dict[str, int]:
    """Return the strides of a tensor along its first axes, as arguments of the kernel."""
    strides = (0,) * len(axes) if tensor is None else tensor.stride()
    return {f"{name}_{axis}_stride": s for axis, s in zip(axes, strides, strict=False)}
