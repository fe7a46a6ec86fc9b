"""YatAttention in the GPU benchmark, and the contestants that compute it.

linear: plain softmax attention, `scaled_dot_product_attention` with its own choice of backend.
flash:  the same with FlashAttention.
cudnn:  the same with cuDNN.
fused:  the kernel of this package.
flex:   `flex_attention` under torch.compile, with the ⵟ-product as its score. This is what a user
        of PyTorch would write. Norms are computed before it.
eager:  the definition in PyTorch, with all scores in memory.
"""

import functools
import math
import os
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from benchmarks.gpu_attention_shapes import AttentionShape
from benchmarks.gpu_queue import Candidate
from benchmarks.gpu_shapes import MODES
from benchmarks.gpu_subjects import EPSILON, UNITS, WrongResultError
from nmn_export.kernels.attention import launch
from nmn_export.kernels.attention.options import Options
from nmn_export.kernels.attention.plan import AttentionPlan, Sizes, plan_attention
from nmn_export.kernels.device import device_of
from nmn_export.kernels.weights import precision_for
from nmn_export.ops import exact_yat_attention, yat_attention

Contestants = dict[str, Callable[..., Tensor]]

MOST_SCORES = 2**31
"""Number of scores up to which `eager` is timed. It keeps several copies of them in float32."""

COMPARED_QUERIES = 64
"""Last queries of one head that are compared with eager attention in large shapes."""


def yat_flex(q: Tensor, k: Tensor, v: Tensor, scale: float, block_mask: BlockMask | None) -> Tensor:
    """Compute YatAttention with `flex_attention`."""
    q_sq, k_sq = (t.float().square().sum(-1) for t in (q, k))
    group = q.shape[1] // k.shape[1]

    def score(dot: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        norms = q_sq[batch, head, query] + k_sq[batch, head // group, key]
        distance = torch.clamp(norms - 2 * dot, min=0.0)
        return scale * dot * dot / (distance + EPSILON)

    y = flex_attention(
        q, k, v, score_mod=score, block_mask=block_mask, scale=1.0, enable_gqa=group > 1
    )
    assert isinstance(y, Tensor)
    return y


@functools.cache
def compiled_flex() -> Callable[..., Tensor]:
    """Return `yat_flex` under torch.compile; without a GPU, itself."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return yat_flex
    return torch.compile(yat_flex, dynamic=False)


def peak_bytes(call: Callable[[], Tensor]) -> int:
    """Return the largest number of bytes that a call has allocated at a time, output included."""
    call()  # what is allocated once, such as compiled code
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


class AttentionSubject:
    """Attention of one shape and mode over random keys and values."""

    CONTESTANTS = ("linear", "flash", "cudnn", "fused", "flex", "eager")

    def __init__(self, shape: AttentionShape, mode: str, device: str) -> None:
        dtype_name, precision = MODES[mode]
        self.shape, self.mode, self.device = shape, mode, device
        self.dtype: torch.dtype = getattr(torch, dtype_name)
        self.precision = precision_for(self.dtype, precision)
        size = (shape.batch, shape.key_heads, shape.keys, shape.features)
        self.k, self.v = (torch.randn(size, device=device).to(self.dtype) for _ in range(2))
        self.scale = 1 / math.sqrt(shape.features)
        self.options = Options.of(EPSILON, self.scale, False, 0.0, 0.0)
        self.block_mask: BlockMask | None = None
        if shape.is_causal:
            offset = shape.keys - shape.queries
            self.block_mask = create_block_mask(
                lambda _, __, query, key: key <= query + offset,
                None,
                None,
                shape.queries,
                shape.keys,
                device=device,
            )

    @property
    def bytes(self) -> int:
        """Bytes of the inputs and the output: the minimum that a call moves."""
        shape = self.shape
        queries = shape.batch * shape.heads * shape.queries * shape.features
        return (2 * queries + 2 * self.k.numel()) * self.dtype.itemsize

    def draw(self) -> Tensor:
        """Return random queries."""
        shape = self.shape
        size = (shape.batch, shape.heads, shape.queries, shape.features)
        return torch.randn(size, device=self.device).to(self.dtype)

    def draw_near(self) -> Tensor:
        """Return random queries. One of each batch is next to a key, where the distance cancels."""
        q = self.draw()
        q[:, 0, -1] = self.k[:, 0, -1] * 1.01
        return q

    def planned(self) -> AttentionPlan:
        """Return the package's own choice for this shape."""
        device = device_of(self.k)
        return plan_attention(self._sizes(), self.dtype, self.precision, True, device)

    def choice_of(self, candidate: Candidate) -> AttentionPlan:
        """Return a candidate of the tile sweep as the launch function takes it."""
        tile = replace(self.planned().tile, m=candidate.m, n=candidate.n, warps=candidate.warps)
        split = candidate.schedule == "split"
        return AttentionPlan(tile, candidate.parts if split else 1, split)

    def _sizes(self) -> Sizes:
        shape = self.shape
        group = shape.heads // shape.key_heads
        lengths = (shape.queries, shape.keys, shape.features, shape.features)
        return Sizes(shape.batch, shape.key_heads, group, *lengths)

    def linear(self, q: Tensor) -> Tensor:
        """Compute softmax attention of the same shape."""
        shape = self.shape
        # PyTorch aligns queries and keys at their begin, so it has no causal mask for the others.
        is_causal = shape.is_causal and shape.queries == shape.keys
        grouped = shape.heads != shape.key_heads
        return F.scaled_dot_product_attention(
            q, self.k, self.v, is_causal=is_causal, enable_gqa=grouped
        )

    def flash(self, q: Tensor) -> Tensor:
        """Compute softmax attention with FlashAttention."""
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return self.linear(q)

    def cudnn(self, q: Tensor) -> Tensor:
        """Compute softmax attention with cuDNN."""
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return self.linear(q)

    def fused(self, q: Tensor, choice: AttentionPlan | None = None) -> Tensor:
        """Compute attention with the fused kernel; `None` uses the package's own choice."""
        return launch.yat_attention(
            q,
            self.k,
            self.v,
            None,
            self.options,
            is_causal=self.shape.is_causal,
            precision=self.precision,
            plan=choice,
        )

    def flex(self, q: Tensor) -> Tensor:
        """Compute attention with `flex_attention`."""
        return compiled_flex()(q, self.k, self.v, self.scale, self.block_mask)

    def eager(self, q: Tensor) -> Tensor:
        """Compute attention with all scores in memory.

        Raises:
            RuntimeError: There are too many.
        """
        if self.shape.scores > MOST_SCORES:
            raise RuntimeError(f"more than {MOST_SCORES} scores")
        return yat_attention(q, self.k, self.v, None, EPSILON, self.scale, self.shape.is_causal)

    def workspace_bytes(self) -> int:
        """Return the bytes of scratch memory of the fused kernel."""
        return self.planned().workspace_bytes(self._sizes())

    def usable(self) -> tuple[Contestants, dict[str, str]]:
        """Return the contestants that support this shape and device, and why others do not.

        Raises:
            RuntimeError: The fused kernel fails.
        """
        q, usable, reasons = self.draw(), {}, {}
        for name in self.CONTESTANTS:
            try:
                getattr(self, name)(q)
                usable[name] = getattr(AttentionSubject, name)
            except RuntimeError as error:
                if name == "fused":
                    raise
                reasons[name] = str(error).splitlines()[0]
        return usable, reasons

    def assert_close_to_unfused(self, choice: AttentionPlan | None = None) -> None:
        """Compare the last queries of one head with eager attention.

        Raises:
            WrongResultError: They differ by more than rounding.
        """
        q = self.draw()
        last = q[:1, :1, -COMPARED_QUERIES:].float()
        keys, values = (t[:1, :1].float() for t in (self.k, self.v))
        y = self.fused(q, choice)[:1, :1, -COMPARED_QUERIES:].float()
        expected = yat_attention(
            last, keys, values, None, EPSILON, self.scale, self.shape.is_causal
        )
        difference, largest = (y - expected).abs().max(), expected.abs().max()
        if not difference <= 0.03 * largest:
            raise WrongResultError(
                f"{self.shape.name} in {self.mode} is wrong: it differs from eager by "
                f"{difference:.3g}, where the largest output is {largest:.3g}"
            )

    def is_near_exact(self, q: Tensor, y: Tensor) -> bool:
        """Return whether rounding explains the difference of `y` from float64.

        The rounding of squared distances moves scores, that of weights and values the output.
        """
        unit = UNITS[self.precision] * torch.finfo(torch.float32).eps
        options = (EPSILON, self.scale, self.shape.is_causal, False, 0.0, 0.0)
        exact = exact_yat_attention(q, self.k, self.v, None, *options)
        moved = (
            exact_yat_attention(q, self.k, self.v, None, *options, displacement=sign * unit)
            for sign in (-1, 1)
        )
        sizes = exact_yat_attention(q, self.k, self.v.abs(), None, *options)
        allowed = sum((other - exact).abs() for other in moved)
        allowed = allowed + (2 * torch.finfo(self.dtype).eps + 4 * unit) * sizes
        return bool(((y.double() - exact).abs() <= allowed).all())
